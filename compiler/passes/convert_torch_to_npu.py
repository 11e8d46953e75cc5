"""convert-torch-to-npu: the raw torch dialect, as imported, becomes `npu`.

One walk over @main in order builds a new function beside it. Every torch value maps to a
value of the new function or to a Python object (numbers, lists, None), so that extents
are computed symbolically on the way and every type gets its own. What an operator becomes
says the table in `compiler/conversions`. An operator that is not in it, or not with these
arguments, is noted; of what depends on it only the name is looked up; all such operators are
reported together.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from opennpu.compiler.conversions import CONVERSIONS, Result, Unsupported
from opennpu.compiler.passes.registry import register_pass
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.symbols import Dim, Sym, dim, tensor_type
from torch_mlir import ir

TENSOR = re.compile(r"!torch\.vtensor<\[([\d?,]*)\],(\w+)>")
DTYPES = {"f32": "f32", "bf16": "bf16", "si64": "i64", "si32": "i32", "si8": "i8", "i1": "i1"}
REMEDY = "Rewrite this part of the model, or add a conversion in compiler/conversions."


@register_pass("convert-torch-to-npu", "the raw torch dialect → npu; extents become symbols of the types")
def run(module: ir.Module) -> None:
    """Converts @main; CompileError lists every operator that cannot be converted."""
    for op in list(module.body.operations):
        if op.operation.name == "func.func":
            convert_function(op.operation)


def convert_function(function: ir.Operation) -> None:
    """Replaces the function by its conversion."""
    extents = given_extents(function)
    tensors = [a for a in _block(function).arguments if a not in extents]
    with ir.InsertionPoint(function), function.location:
        types = [argument_type(function, a.arg_number) for a in tensors]
        converted = ir.Operation.create("func.func", attributes=dict(_attributes(function)), regions=1)
    block = converted.regions[0].blocks.append(*types, arg_locs=[a.location for a in tensors])
    conversion = Conversion({**extents, **dict(zip(tensors, block.arguments, strict=True))})
    try:
        with ir.InsertionPoint(block):
            for op in _block(function).operations:
                conversion.convert(op.operation)
        conversion.raise_problems()
    except CompileError:
        converted.erase()
        raise
    results = [value.type for value in list(block.operations)[-1].operands]
    converted.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(types, results))
    function.erase()


class Poison:
    """The result of an operator that could not be converted."""


POISON = Poison()


class Conversion:
    """One function's conversion: what each torch value became, and what went wrong."""

    def __init__(self, values: dict[ir.Value, Any]):
        self.values = values
        self.problems: list[Problem] = []

    def convert(self, op: ir.Operation) -> None:
        """Builds what the operation becomes, or notes why it cannot be."""
        if op.name == "func.return":
            self._return(op)
            return
        arguments = [self.values[v] for v in op.operands]
        results = [POISON] * len(op.results)
        try:
            build = _builder(op)
            if not _poisoned(arguments):
                with op.location:
                    built = build(*arguments)
                    built = built if isinstance(built, list) else [built]
                    results = [_checked(value, r.type) for value, r in zip(built, op.results, strict=True)]
        except (Unsupported, npu.Invalid, ValueError, TypeError, OverflowError) as reason:
            self.problems.append(
                Problem(f"operator {operator_name(op)}: {reason}", describe(op.location), REMEDY)
            )
        self.values.update(zip(op.results, results, strict=True))

    def raise_problems(self) -> None:
        if self.problems:
            raise CompileError(*self.problems)

    def _return(self, op: ir.Operation) -> None:
        results = [self.values[v] for v in op.operands]
        for i, value in enumerate(results):
            if not isinstance(value, ir.Value | Poison):
                self.problems.append(Problem(f"result {i} of the model is {value}, no tensor"))
        if not self.problems:
            ir.Operation.create("func.return", operands=results, loc=op.location)


def _builder(op: ir.Operation) -> Callable[..., Any]:
    """What builds the operation's results from its arguments. Raises Unsupported."""
    if op.name.startswith("torch.constant."):
        return lambda: constant(op)
    conversion = CONVERSIONS.get(operator_name(op))
    if conversion is None:
        raise Unsupported("there is no conversion for it")
    if not conversion.wants_result:
        return conversion.build
    return partial(conversion.build, result=result_of(op.results[0].type))


def operator_name(op: ir.Operation) -> str:
    """`aten.add.Tensor`, `opennpu.rms_norm`."""
    name = op.attributes["name"].value if op.name == "torch.operator" else op.name
    return name.removeprefix("torch.").removesuffix(".default")


def constant(op: ir.Operation) -> Any:
    """The Python value of torch.constant.*; devices are of no concern here."""
    kind = op.name.removeprefix("torch.constant.")
    if kind in ("none", "device"):
        return None
    value = op.attributes["value"].value
    return bool(value) if kind == "bool" else value


# ---- types


def given_extents(function: ir.Operation) -> dict[ir.Value, Dim]:
    """Arguments that are integers: what `npu.extent` says they are, in symbols."""
    return {
        argument: dim(described["npu.extent"].value)
        for argument, described in zip(_block(function).arguments, _described(function), strict=True)
        if "npu.extent" in described
    }


def argument_type(function: ir.Operation, index: int) -> ir.Type:
    """The tensor type of an argument: extents from `npu.dims`, where it has them."""
    argument = _block(function).arguments[index]
    described = _described(function)[index]
    names = [described[key].value for key in ("npu.input", "npu.param") if key in described]
    where = f"argument {' '.join(names) or index} of type {argument.type}"
    try:
        result = result_of(argument.type)
    except Unsupported as reason:
        raise CompileError(
            Problem(f"{where}: {reason}", remedy=f"Use {', '.join(DTYPES.values())}.")
        ) from None
    if result is None:
        raise CompileError(
            Problem(f"{where} is no tensor", remedy="Make it a tensor or a constant of the model.")
        )
    shape = result.shape
    if "npu.dims" in described:
        shape = [dim(Sym.of(extent.value)) for extent in described["npu.dims"]]
    if None in shape:
        raise CompileError(f"{where} has no npu.dims to name its extents")
    return tensor_type(shape, npu.element_type(result.dtype))


def result_of(type_: ir.Type) -> Result | None:
    """What a torch type says of a tensor; None for other types."""
    return _parse_tensor(str(type_))


@lru_cache(maxsize=4096)
def _parse_tensor(text: str) -> Result | None:
    match = TENSOR.fullmatch(text)
    if not match:
        return None
    if match[2] not in DTYPES:
        raise Unsupported(f"the dtype {match[2]} of {text}")
    return Result(DTYPES[match[2]], tuple(None if d == "?" else int(d) for d in match[1].split(",") if d))


def _checked(value: Any, type_: ir.Type) -> Any:
    """The value in the dtype that the program says; ValueError where the shape contradicts it."""
    if not isinstance(value, ir.Value):
        return value
    expected = result_of(type_)
    if expected is None:
        return value
    value = npu.cast(value, expected.dtype)
    shape = npu.dims(value)
    fits = len(shape) == len(expected.shape) and all(
        e in (None, d) or isinstance(d, Sym) for d, e in zip(shape, expected.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"the extents come out as {npu.show(shape)}, the program says {type_}")
    return value


# ---- the rest


def _attributes(function: ir.Operation):
    """The function's attributes; of its arguments only tensors, without npu.dims, which the types now say."""
    for name in function.attributes:
        attribute = function.attributes[name]
        if name == "arg_attrs":
            tensors = [entry for entry in attribute if "npu.extent" not in entry]
            attribute = ir.ArrayAttr.get(
                [ir.DictAttr.get({e.name: e.attr for e in t if e.name != "npu.dims"}) for t in tensors]
            )
        yield name, attribute


def _described(function: ir.Operation) -> list[Mapping[str, ir.Attribute]]:
    """What is said of each argument."""
    if "arg_attrs" in function.attributes:
        return list(function.attributes["arg_attrs"])
    return [{}] * len(_block(function).arguments)


def _block(function: ir.Operation) -> ir.Block:
    return function.regions[0].blocks[0]


def _poisoned(arguments: list[Any]) -> bool:
    return any(a is POISON or (isinstance(a, list) and _poisoned(a)) for a in arguments)


def describe(location: ir.Location) -> str:
    """`model.layers.0.mlp (model.py:12)`"""
    if isinstance(location, ir.NameLoc):
        child = describe(location.child_loc)
        return f"{location.name_str} ({child})" if child else location.name_str
    if isinstance(location, ir.FileLineColLoc):
        return f"{location.filename}:{location.start_line}"
    return ""
