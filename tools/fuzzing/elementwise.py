"""Operators of random graphs that take element by element, casts among them."""

from functools import partial

import torch
import torch.nn.functional as F
from opennpu.runtime.dtypes import DTYPES
from opennpu.tools.fuzzing.registry import (
    Choice,
    Value,
    broadcasts,
    is_float,
    one,
    operator,
    some,
    two,
)

for _name in (
    "neg",
    "abs",
    "relu",
    "sigmoid",
    "tanh",
    "erf",
    "floor",
    "ceil",
    "round",
    "trunc",
    "square",
    "sign",
):
    operator(_name, one(is_float))(getattr(torch, _name))
operator("sin", one(is_float), absolute=True)(torch.sin)
operator("cos", one(is_float), absolute=True)(torch.cos)
operator("gelu", one(is_float), absolute=True)(F.gelu)
operator("gelu_tanh", one(is_float), absolute=True)(lambda x: F.gelu(x, approximate="tanh"))
operator("silu", one(is_float))(F.silu)
operator("exp", one(is_float))(lambda x: torch.exp(x.clamp(-20, 20)))
operator("log", one(is_float))(lambda x: torch.log(x.abs().clamp(min=0.25)))
operator("sqrt", one(is_float))(lambda x: torch.sqrt(x.abs()))
operator("rsqrt", one(is_float))(lambda x: torch.rsqrt(x.abs().clamp(min=0.125)))
operator("recip", one(is_float))(lambda x: torch.reciprocal(x.abs().clamp(min=0.5)))
operator("softplus", one(is_float))(F.softplus)
operator("elu", one(is_float))(F.elu)
operator("hardtanh", one(is_float))(F.hardtanh)
operator("leaky_relu", one(is_float))(F.leaky_relu)
operator("exp2", one(is_float))(lambda x: torch.exp2(x.clamp(-20, 20)))
operator("log2", one(is_float), absolute=True)(lambda x: torch.log2(x.abs().clamp(min=0.25)))
operator("log1p", one(is_float))(lambda x: torch.log1p(x.abs()))
operator("not_finite", one(is_float))(lambda x: ~x.isfinite())
operator("int_neg", one(lambda v: v.is_integer))(torch.neg)
operator("int_abs", one(lambda v: v.is_integer))(torch.abs)
operator("not", one(lambda v: v.dtype == torch.bool))(torch.logical_not)


def _number(rng, value: Value) -> dict:
    return {"number": rng.choice([0.5, 2.0, -1.5, 3, -0.25])}


operator("times", one(is_float, _number))(lambda x, number: x * number)
operator("plus", one(is_float, _number))(lambda x, number: x + number)


@operator("clamp", one(is_float, lambda r, v: {"low": -r.choice([0.5, 2.0]), "high": r.choice([0.25, 1.5])}))
def clamp(x, low, high):
    return x.clamp(low, high)


@operator(
    "int_scalar",
    one(lambda v: v.is_integer, lambda r, v: {"op": r.choice("+-*/%&"), "by": r.choice([1, 2, 3, 7])}),
)
def int_scalar(x, op, by):
    table = {"+": x + by, "-": by - x, "*": x * by, "/": x // by, "%": x % by, "&": x & by}
    return table[op]


for _name in ("add", "sub", "mul", "maximum", "minimum"):
    operator(_name, two(is_float))(getattr(torch, _name))
    operator(f"int_{_name}", two(lambda v: v.is_integer))(getattr(torch, _name))
operator("mixed_add", two(lambda v: v.dtype != torch.bool))(torch.add)
operator("div", two(is_float))(lambda a, b: a / b.abs().clamp(min=0.5))
operator("pow", two(is_float))(lambda a, b: a.abs().clamp(0.5, 4) ** b.clamp(-3, 3))
operator("int_div", two(lambda v: v.is_integer))(
    lambda a, b: torch.div(a, b.abs() + 1, rounding_mode="trunc")
)
operator("int_mod", two(lambda v: v.is_integer))(lambda a, b: a % (b.abs() + 1))
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    operator(_name, two(lambda v: v.is_integer))(getattr(torch, _name))
operator("shift", two(lambda v: v.is_integer))(lambda a, b: a << (b & 3))
operator("hypot", two(is_float))(torch.hypot)
for _name in ("lt", "le", "gt", "ge"):
    operator(_name, two(lambda v: v.dtype != torch.bool))(getattr(torch, _name))
for _name in ("eq", "ne"):  # of floats a rounding decides
    operator(_name, two(lambda v: v.is_integer))(getattr(torch, _name))
for _name in ("logical_and", "logical_or", "logical_xor"):
    operator(_name, two(lambda v: v.dtype == torch.bool))(getattr(torch, _name))


def _where(rng, values) -> Choice:
    c = some(rng, values, lambda v: v.dtype == torch.bool)
    if c is None:
        return None
    a = some(rng, values, lambda v: broadcasts(values[c], v))
    if a is None:
        return None
    b = some(rng, values, lambda v: v.dtype == values[a].dtype and broadcasts(values[a], v)
             and broadcasts(values[c], v))  # fmt: skip
    return None if b is None else ([c, a, b], {})


operator("where", _where)(torch.where)
operator("masked_fill", _where)(lambda c, a, b: torch.where(c, b, torch.zeros_like(a)))


def _cast(x, dtype, real):
    """To integers only what fits: the rest has no defined result in PyTorch."""
    if DTYPES[dtype].is_floating_point:
        return x.to(real or DTYPES[dtype])
    return x.clamp(-100, 100).to(DTYPES[dtype]) if x.is_floating_point() else x.to(DTYPES[dtype])


operator(
    "cast",
    one(lambda v: True, lambda r, v: {"dtype": r.choice([n for n in DTYPES if DTYPES[n] != v.dtype])}),
    real=partial(_cast, real=torch.float64),
)(partial(_cast, real=None))
