"""v_fill against torch.full."""

import pytest
import torch
from chip_lab import INTEGERS, TORCH_DTYPES


@pytest.mark.parametrize("value", [0.0, -1.7, 1e20, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_floats(lab, dtype, value):
    dst = lab.tile(lab.shape(), dtype)
    lab.run(lab.vector("v_fill", dst=dst, value=value, is_float=1)).expect(dst, torch.full(dst.shape, value))


@pytest.mark.parametrize("value", [0, 1, -7, 1 << 40, -(1 << 63)])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_keep_their_low_bits(lab, dtype, value):
    dst = lab.tile(lab.shape(), dtype)
    want = torch.full(dst.shape, value)
    want = (want != 0).to(torch.uint8) if dtype == "bool" else want.to(TORCH_DTYPES[dtype])
    lab.run(lab.vector("v_fill", dst=dst, value=value, is_float=0)).expect(dst, want)


def test_between_kinds(lab):
    as_integer, as_float = lab.tile((1, 2, 3), "i32"), lab.tile((1, 2, 3), "bf16")
    got = lab.run(lab.vector("v_fill", dst=as_integer, value=-2.9, is_float=1))
    got.expect(as_integer, torch.full((1, 2, 3), -2))
    got = lab.run(lab.vector("v_fill", dst=as_float, value=257, is_float=0))
    got.expect(as_float, torch.full((1, 2, 3), 256.0))  # 257 is halfway between two bf16


def test_empty(lab):
    dst = lab.tile((2, 3, 4), "f32")
    got = lab.run(lab.vector("v_fill", (2, 0, 4), dst=dst, value=1.0, is_float=1))
    got.expect_memory(got.before)
