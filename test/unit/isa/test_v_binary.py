"""v_binary against numpy in float32, float64 and int64."""

import numpy as np
import pytest
import torch
from chip_lab import FLOATS, INTEGERS
from opennpu.dialects.isa.table import ISA

COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
IN_FLOATS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mod": np.fmod,
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    **COMPARISONS,
}


def integer_pow(a: int, b: int) -> int:
    if b < 0:
        return {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)
    return pow(a, b, 2**64)


IN_INTEGERS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) if b else 0,
    "mod": lambda a, b: abs(a) % abs(b) * (-1 if a < 0 else 1) if b else 0,
    "max": max,
    "min": min,
    "pow": integer_pow,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    **{op: lambda a, b, f=f: int(f(a, b)) for op, f in COMPARISONS.items()},
}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy on inf, nan and division by 0


def test_every_operation_is_here():
    assert {*IN_FLOATS, "pow"} == set(IN_INTEGERS) == set(ISA.enums["binary"])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", IN_FLOATS)
def test_floats(lab, op, dtype):
    shape = (2, 3, 60)
    a, b = (lab.tile(shape, dtype, lab.values(dtype, shape)) for _ in range(2))
    dst = lab.tile(shape, "f32")
    want = IN_FLOATS[op](a.values().float().numpy(), b.values().float().numpy())
    lab.run(lab.vector("v_binary", op=op, dst=dst, a=a, b=b)).expect(dst, torch.from_numpy(want).float())


def test_pow(lab):
    shape = (2, 3, 200)
    a, b = (lab.tile(shape, "f32", lab.values("f32", shape), space="spm") for _ in range(2))
    whole = lab.tile(shape, "f32", lab.randint(-5, 6, shape), space="spm")
    for exponent in (b, whole):
        dst = lab.tile(shape, "f32", space="spm")
        want = np.power(a.values().double().numpy(), exponent.values().double().numpy())
        got = lab.run(lab.vector("v_binary", op="pow", dst=dst, a=a, b=exponent))
        got.expect(dst, torch.from_numpy(want), lab.ulps)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", IN_INTEGERS)
def test_integers(lab, op, dtype):
    shape = (2, 3, 60)
    other = dtype if op in ("and", "or", "xor") else "i32"
    a = lab.tile(shape, dtype, lab.values(dtype, shape))
    b = lab.tile(shape, other, lab.values(other, shape))
    dst = lab.tile(shape, "i64")
    pairs = zip(integers(a), integers(b), strict=True)
    want = torch.tensor([wrap(IN_INTEGERS[op](x, y)) for x, y in pairs]).reshape(shape)
    lab.run(lab.vector("v_binary", op=op, dst=dst, a=a, b=b)).expect(dst, want)


def integers(tile) -> list[int]:
    values = tile.values().flatten().tolist()
    return [int(v != 0) for v in values] if tile.dtype == "bool" else values


def wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def test_division_of_the_least_integer(lab):
    a, b = lab.tile((1, 1, 1), "i64", torch.tensor(-(2**63))), lab.tile((1, 1, 1), "i64", torch.tensor(-1))
    dst = lab.tile((1, 1, 1), "i64")
    for op, want in (("div", -(2**63)), ("mod", 0)):
        got = lab.run(lab.vector("v_binary", op=op, dst=dst, a=a, b=b))
        got.expect(dst, torch.full((1, 1, 1), want))


def test_an_integer_with_a_float_computes_in_f32(lab):
    shape = lab.shape()
    a, b = lab.tile(shape, "i32", lab.values("i32", shape)), lab.tile(shape, "bf16", lab.randn(shape))
    dst = lab.tile(shape, "bf16")
    want = a.values().float() * b.values().float()
    lab.run(lab.vector("v_binary", op="mul", dst=dst, a=a, b=b)).expect(dst, want)


@pytest.mark.parametrize("repeat", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_broadcast(lab, repeat):
    shape = lab.shape()
    a = lab.tile(shape, "f32", lab.randn(shape))
    b = lab.tile(
        shape, "bf16", lab.randn([1 if d in repeat else n for d, n in enumerate(shape)]), repeat=repeat
    )
    dst = lab.tile(shape, "f32")
    want = a.values() - b.values().float()
    lab.run(lab.vector("v_binary", op="sub", dst=dst, a=a, b=b)).expect(dst, want)


@pytest.mark.parametrize("place", ["a", "b"])
def test_in_place(lab, place):
    shape = lab.shape()
    tiles = {name: lab.tile(shape, "f32", lab.randn(shape)) for name in "ab"}
    want = tiles["a"].values() / tiles["b"].values()
    got = lab.run(lab.vector("v_binary", op="div", dst=tiles[place], **tiles))
    got.expect(tiles[place], want)


def test_empty(lab):
    a = lab.tile((2, 3, 4), "f32")
    got = lab.run(lab.vector("v_binary", (2, 3, 0), op="add", dst=a, a=a, b=a))
    got.expect_memory(got.before)
