"""v_unary against PyTorch in float64 and int64."""

import pytest
import torch
from chip_lab import FLOATS, INTEGERS, TORCH_DTYPES
from opennpu.dialects.isa.table import ISA

EXACT = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "recip": torch.reciprocal,
    "relu": torch.relu,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "not": lambda x: (x == 0).to(x.dtype),
}
APPROXIMATE = {
    "exp": torch.exp,
    "log": torch.log,
    "rsqrt": torch.rsqrt,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
    # gelu by erfc: 1 + erf(x) cancels for x < 0 even in float64.
    "gelu": lambda x: x * torch.special.erfc(-x / 2**0.5) / 2,
    "gelu_tanh": lambda x: x * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)),
    "sin": torch.sin,
    "cos": torch.cos,
}
ABSOLUTE = 2.0**-22  # what isa.toml allows the native engine for these
WITH_ABSOLUTE = ("sin", "cos", "gelu", "gelu_tanh")
IN_INTEGERS = ("neg", "abs", "sign", "square", "relu", "not")


def test_every_operation_is_here():
    assert {*EXACT, *APPROXIMATE, "copy"} == set(ISA.enums["unary"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", EXACT)
def test_exact(lab, op, dtype):
    shape = lab.shape()
    a, dst = lab.tile(shape, dtype, lab.values(dtype, shape)), lab.tile(shape, "f32")
    want = EXACT[op](
        a.values().double()
    ).float()  # one rounding to f32 of a value exact or rounded once in f64
    lab.run(lab.vector("v_unary", op=op, dst=dst, a=a)).expect(dst, want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", APPROXIMATE)
def test_approximate(lab, op, dtype):
    shape = (2, 3, 200)
    a, dst = (
        lab.tile(shape, "f32", lab.values("f32", shape), space="spm"),
        lab.tile(shape, dtype, space="spm"),
    )
    got = lab.run(lab.vector("v_unary", op=op, dst=dst, a=a))
    want = APPROXIMATE[op](a.values().double())
    absolute = 0 if lab.exact or op not in WITH_ABSOLUTE else ABSOLUTE
    got.expect(dst, want, ulps=lab.ulps, absolute=absolute)


@pytest.mark.parametrize("op", ["sin", "cos"])
def test_large_arguments(lab, op):
    shape = (1, 1, 300)
    angles = torch.linspace(0, 126, 300, dtype=torch.float64).exp2().float().expand(shape)
    a, dst = lab.tile(shape, "f32", angles), lab.tile(shape, "f32")
    got = lab.run(lab.vector("v_unary", op=op, dst=dst, a=a))
    got.expect(dst, APPROXIMATE[op](a.values().double()), lab.ulps, 0 if lab.exact else ABSOLUTE)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", IN_INTEGERS)
def test_integers(lab, op, dtype):
    shape = lab.shape()
    a, dst = lab.tile(shape, dtype, lab.values(dtype, shape)), lab.tile(shape, "i64")
    x = a.values().bool().long() if dtype == "bool" else a.values().long()
    lab.run(lab.vector("v_unary", op=op, dst=dst, a=a)).expect(dst, EXACT[op](x))


@pytest.mark.parametrize("op", ["exp", "floor", "recip"])
def test_integers_in_f32(lab, op):
    shape = lab.shape()
    a, dst = lab.tile(shape, "i32", lab.randint(-20, 20, shape)), lab.tile(shape, "f32")
    want = {**EXACT, **APPROXIMATE}[op](a.values().double())
    lab.run(lab.vector("v_unary", op=op, dst=dst, a=a)).expect(dst, want, lab.ulps)


@pytest.mark.parametrize("to", TORCH_DTYPES)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_copy_casts(lab, dtype, to):
    shape = (2, 3, 50)
    values = lab.values(dtype, shape)
    a, dst = lab.tile(shape, dtype, values, space="spm"), lab.tile(shape, to, space="spm")
    lab.run(lab.vector("v_unary", op="copy", dst=dst, a=a)).expect(dst, cast(a.values(), dtype, to))


def cast(x: torch.Tensor, dtype: str, to: str) -> torch.Tensor:
    """As isa.toml has it: floats saturate, integers wrap, a bool is 0 or 1."""
    if dtype == "bool":
        x = x.bool().to(torch.uint8)
    if to == "bool":
        return (x != 0).to(torch.uint8)
    if to in FLOATS:
        return x.float().to(TORCH_DTYPES[to])  # 64-bit integers by way of f32
    if dtype in FLOATS:
        whole = [saturate(v, torch.iinfo(TORCH_DTYPES[to])) for v in x.flatten().tolist()]
        return torch.tensor(whole, dtype=TORCH_DTYPES[to]).reshape(x.shape)
    return x.to(TORCH_DTYPES[to])


def saturate(value: float, info: torch.iinfo) -> int:
    """Python compares floats with integers exactly."""
    if value != value:
        return 0
    return info.min if value <= info.min else info.max if value >= info.max else int(value)


def test_in_place_and_broadcast(lab):
    shape = (2, 3, 17)
    a = lab.tile(shape, "f32", lab.randn(shape))
    lab.run(lab.vector("v_unary", op="neg", dst=a, a=a)).expect(a, -a.values())
    row, dst = lab.tile(shape, "bf16", lab.randn((1, 1, 17)), repeat=(0, 1)), lab.tile(shape, "f32")
    lab.run(lab.vector("v_unary", op="copy", dst=dst, a=row)).expect(dst, row.values().float())


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0), (1, -5, 1)])
def test_empty(lab, shape):
    a, dst = lab.tile((2, 3, 3), "f32"), lab.tile((2, 3, 3), "f32")
    got = lab.run(lab.vector("v_unary", shape, op="exp", dst=dst, a=a))
    got.expect_memory(got.before)
