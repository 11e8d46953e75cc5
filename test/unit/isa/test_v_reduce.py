"""v_reduce against PyTorch; the order of float sums against sixteen lanes by hand."""

import pytest
import torch
from chip_lab import FLOATS, INTEGERS, fused_multiply_add

INTEGER_LIMITS = torch.iinfo(torch.int64)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["sum", "sumsq"])
def test_float_sums(lab, op, dtype):
    shape = (2, 3, lab.number(1, 300))
    a, dst = lab.tile(shape, dtype, lab.randn(shape)), lab.tile((2, 3, 1), "f32")
    got = lab.run(lab.vector("v_reduce", shape, op=op, dst=dst, a=a))
    want = a.values().double()
    terms = want.square() if op == "sumsq" else want
    # n roundings of partial sums, each within half a unit of 2^-23 of the sum of magnitudes; twice for slack.
    bound = shape[2] * 2.0**-23 * float(terms.abs().sum(2).max())
    got.expect(dst, terms.sum(2, keepdim=True), absolute=bound)
    if lab.exact:
        got.expect(dst, lanes(a.values().float(), op))


def lanes(x: torch.Tensor, op: str) -> torch.Tensor:
    """v_reduce's order over the last dimension, f32 [.., n] → [.., 1]."""
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % 16))
    lane = torch.zeros(*x.shape[:-1], 16)
    for block in x.split(16, -1):
        lane = fused_multiply_add(block, block, lane) if op == "sumsq" else lane + block
    for half in (8, 4, 2, 1):
        lane = lane[..., :half] + lane[..., half : 2 * half]
    return lane


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["max", "min"])
def test_float_extremes(lab, op, dtype):
    shape = (3, 4, lab.number(1, 50))
    values = lab.values(dtype, shape)
    values[0] = lab.randn(values[0].shape)  # rows without a NaN
    a, dst = lab.tile(shape, dtype, values), lab.tile((3, 4, 1), "f32")
    want = getattr(torch, "a" + op)(a.values().float(), 2, keepdim=True)
    lab.run(lab.vector("v_reduce", shape, op=op, dst=dst, a=a)).expect(dst, want)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", ["sum", "sumsq", "max", "min"])
def test_integers(lab, op, dtype):
    shape = (2, 3, lab.number(1, 50))
    a, dst = lab.tile(shape, dtype, lab.values(dtype, shape)), lab.tile((2, 3, 1), "i64")
    x = (a.values() != 0).long() if dtype == "bool" else a.values().long()
    functions = {
        "sum": torch.sum,
        "sumsq": lambda x, d, keepdim: (x * x).sum(d, keepdim),
        "max": torch.amax,
        "min": torch.amin,
    }
    lab.run(lab.vector("v_reduce", shape, op=op, dst=dst, a=a)).expect(dst, functions[op](x, 2, keepdim=True))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_argmax_is_the_first(lab, dtype):
    shape = (3, 4, lab.number(1, 300))
    values = lab.randint(0, 4, shape)
    values[1:, :, : shape[2] // 2] = 0  # their greatest come late
    a, dst = lab.tile(shape, dtype, values), lab.tile((3, 4, 1), "i32")
    x = (a.values() != 0).numpy() if dtype == "bool" else a.values().float().numpy()
    want = torch.from_numpy(x.argmax(2, keepdims=True))
    lab.run(lab.vector("v_reduce", shape, op="argmax", dst=dst, a=a)).expect(dst, want)


@pytest.mark.parametrize("before", [0, 150])
def test_argmax_of_nan_and_infinity(lab, before):
    rows = torch.tensor(
        [[-torch.inf, -torch.inf, -torch.inf], [1, torch.nan, torch.nan], [3, torch.inf, torch.inf]]
    )
    rows = torch.nn.functional.pad(rows, (before, 0), value=-torch.inf)
    shape = (1, *rows.shape)
    a, dst = lab.tile(shape, "f32", rows[None]), lab.tile((1, 3, 1), "i64")
    got = lab.run(lab.vector("v_reduce", shape, op="argmax", dst=dst, a=a))
    got.expect(dst, torch.tensor([[[0], [before + 1], [before + 1]]]))


@pytest.mark.parametrize(
    ("dtype", "op", "want"),
    [
        ("f32", "sum", 0.0),
        ("f32", "max", -torch.inf),
        ("bf16", "min", torch.inf),
        ("i64", "sumsq", 0),
        ("i64", "max", INTEGER_LIMITS.min),
        ("i8", "min", INTEGER_LIMITS.max),
        ("f32", "argmax", 0),
    ],
)
def test_of_no_elements(lab, dtype, op, want):
    a = lab.tile((2, 3, 1), dtype)
    dst = lab.tile((2, 3, 1), "i64" if isinstance(want, int) else "f32")
    got = lab.run(lab.vector("v_reduce", (2, 3, 0), op=op, dst=dst, a=a))
    got.expect(dst, torch.full((2, 3, 1), want))


def test_broadcast_source_and_cast(lab):
    a, dst = lab.tile((2, 3, 40), "bf16", torch.tensor(0.1), repeat=(0, 2)), lab.tile((2, 3, 1), "bf16")
    want = torch.full((2, 3, 1), float(a.values()[0, 0, 0]) * 40)
    # 40 equal terms: a lane adds 2 or 3, exact to 2^-23; bf16 keeps 8 bits.
    lab.run(lab.vector("v_reduce", (2, 3, 40), op="sum", dst=dst, a=a)).expect(dst, want.double(), ulps=8)


def test_empty(lab):
    a = lab.tile((2, 3, 4), "f32")
    got = lab.run(lab.vector("v_reduce", (2, 0, 4), op="sum", dst=a, a=a))
    got.expect_memory(got.before)
