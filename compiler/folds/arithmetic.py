"""Folds of element-wise ops: neutral operands, numbers, casts, broadcasts that are implicit."""

import operator

import numpy as np
from opennpu.compiler.folds.table import folds, iota_along, result_dims, splat
from opennpu.compiler.rewriting import attr, definition
from opennpu.dialects import npu

NEUTRAL_RIGHT = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1, "and": True, "or": False, "xor": False}
COMMUTATIVE = ("add", "mul", "and", "or", "xor")

BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    **{name: getattr(operator, name) for name in npu.COMPARISONS},
}
UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "square": np.square,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "recip": lambda x: 1 / x,
    "tanh": np.tanh,
    "floor": np.floor,
    "ceil": np.ceil,
    "not": np.logical_not,
}
NUMPY = {
    "f32": np.float32,
    "bf16": np.float32,
    "i64": np.int64,
    "i32": np.int32,
    "i8": np.int8,
    "i1": np.bool_,
}

WIDER = {
    "i1": ("i8", "i32", "i64", "bf16", "f32"),
    "i8": ("i32", "i64", "bf16", "f32"),
    "i32": ("i64",),
    "bf16": ("f32",),
}
"""The dtypes that hold every value of a dtype."""


def number(value, element):
    """A constant as numpy computes with it, None for another value."""
    found = splat(value)
    return None if found is None else NUMPY[element](found)


def constant_like(op, value):
    return npu.constant(np.asarray(value).item(), result_dims(op), npu.dtype(op.results[0]))


@folds("unary")
def unary_of_constant(op):
    x, name = op.operands[0], attr(op, "op")
    value = number(x, npu.dtype(x))
    if value is None or name not in UNARY:
        return None
    with np.errstate(all="ignore"):
        return constant_like(op, UNARY[name](value))


@folds("unary")
def unary_of_no_effect(op):
    name, inner = attr(op, "op"), definition(op.operands[0], "npu.unary")
    if name == "copy":
        return op.operands[0]
    undone = inner and name in ("neg", "not") and attr(inner, "op") == name
    return inner.operands[0] if undone else None


@folds("binary")
def binary_of_constants(op):
    name, element = attr(op, "op"), npu.dtype(op.operands[0])
    a, b = (number(x, element) for x in op.operands)
    if a is None or b is None or name not in BINARY:
        return None
    if element not in npu.FLOATS and (name == "div" or (name == "pow" and b < 0)):
        return None  # numpy has no integer op that truncates
    with np.errstate(all="ignore"):
        return constant_like(op, BINARY[name](a, b))


@folds("binary")
def neutral_operand(op):
    (a, b), name = op.operands, attr(op, "op")
    pairs = [(a, b), (b, a)] if name in COMMUTATIVE else [(a, b)]
    for x, other in pairs:
        value = splat(other)
        is_neutral = value is not None and name in NEUTRAL_RIGHT and value == NEUTRAL_RIGHT[name]
        logical = name in npu.LOGICAL and npu.dtype(x) != "i1"
        if is_neutral and not logical:
            return npu.broadcast_to(x, result_dims(op))
    return None


@folds("binary")
def same_operands(op):
    a, b = op.operands
    return a if a == b and attr(op, "op") in ("and", "or", "max", "min") else None


@folds("binary")
def count_compared(op):
    """A range that begins at or after the number that it is compared with."""
    (a, b), name = op.operands, attr(op, "op")
    counted, bound = iota_along(a), splat(b)
    if counted is None or bound is None or name not in ("ge", "lt"):
        return None
    _, start, step = counted
    return constant_like(op, name == "ge") if step >= 0 and start >= bound else None


@folds("binary", "select")
def implicit_broadcast(op):
    """Broadcasts that the op does by itself."""
    simpler = [
        x if (inner := definition(x, "npu.broadcast")) is None else inner.operands[0] for x in op.operands
    ]
    if simpler == list(op.operands) or npu.broadcast(*map(npu.dims, simpler)) != result_dims(op):
        return None
    return npu.binary(attr(op, "op"), *simpler) if op.name == "npu.binary" else npu.select(*simpler)


@folds("select")
def select_by_constant(op):
    cond, a, b = op.operands
    value = splat(cond)
    if a == b:
        return npu.broadcast_to(a, result_dims(op))
    return None if value is None else npu.broadcast_to(a if value else b, result_dims(op))


@folds("cast")
def cast_of_constant(op):
    value, target = splat(op.operands[0]), npu.dtype(op.results[0])
    return None if value is None else npu.constant(converted(value, target), result_dims(op), target)


def converted(value, target):
    """A number as the chip casts it: a float to an integer truncates and saturates, NaN gives 0,
    an integer to a narrower one keeps the low bits."""
    if isinstance(value, float) and target not in (*npu.FLOATS, "i1"):
        limits = np.iinfo(NUMPY[target])
        return 0 if np.isnan(value) else int(min(max(value, limits.min), limits.max))
    return np.asarray(value).astype(NUMPY[target]).item()


@folds("cast")
def cast_of_no_effect(op):
    """To the same dtype, or by way of a dtype that holds every value."""
    x, target = op.operands[0], npu.dtype(op.results[0])
    if npu.dtype(x) == target:
        return x
    inner = definition(x, "npu.cast")
    if inner is None or npu.dtype(x) not in WIDER.get(npu.dtype(inner.operands[0]), ()):
        return None
    return npu.cast(inner.operands[0], target)


@folds("reduce")
def reduce_of_one(op):
    """Along a dimension of extent 1 there is nothing to do."""
    x, name = op.operands[0], attr(op, "op")
    trivial = npu.dims(x)[attr(op, "dim")] == 1 and name != "argmax"
    return npu.reshape(x, result_dims(op)) if trivial else None
