"""v_select against torch.where."""

import pytest
import torch
from chip_lab import TORCH_DTYPES


@pytest.mark.parametrize("cond_dtype", TORCH_DTYPES)
def test_conditions(lab, cond_dtype):
    shape = lab.shape()
    cond = lab.tile(shape, cond_dtype, lab.randint(0, 3, shape))
    a, b, dst = (lab.tile(shape, "f32", lab.randn(shape)) for _ in range(3))
    want = torch.where(cond.values() != 0, a.values(), b.values())
    lab.run(lab.vector("v_select", dst=dst, cond=cond, a=a, b=b)).expect(dst, want)


def test_a_nan_is_true_and_minus_0_is_not(lab):
    cond = lab.tile((1, 1, 3), "f32", torch.tensor([torch.nan, -0.0, 1e-40]))
    a, b = lab.tile((1, 1, 3), "i32", torch.arange(3)), lab.tile((1, 1, 3), "i32", torch.arange(10, 13))
    dst = lab.tile((1, 1, 3), "i32")
    got = lab.run(lab.vector("v_select", dst=dst, cond=cond, a=a, b=b))
    got.expect(dst, torch.tensor([[[0, 11, 2]]]))


def test_casts_what_it_chose(lab):
    shape = lab.shape()
    cond = lab.tile(shape, "bool", lab.values("bool", shape))
    a, b = lab.tile(shape, "bf16", lab.randn(shape)), lab.tile(shape, "i32", lab.randint(-300, 300, shape))
    dst = lab.tile(shape, "bf16")
    want = torch.where(cond.values() != 0, a.values().float(), b.values().float())
    lab.run(lab.vector("v_select", dst=dst, cond=cond, a=a, b=b)).expect(dst, want)


def test_large_integers_are_exact(lab):
    shape = lab.shape()
    cond = lab.tile(shape, "bool", lab.values("bool", shape), repeat=())
    a, b, dst = (lab.tile(shape, "i64", lab.values("i64", shape)) for _ in range(3))
    want = torch.where(cond.values() != 0, a.values(), b.values())
    lab.run(lab.vector("v_select", dst=dst, cond=cond, a=a, b=b)).expect(dst, want)


def test_broadcast_and_in_place(lab):
    shape = lab.shape()
    cond = lab.tile(shape, "bool", lab.randint(0, 2, (1, 1, shape[2])), repeat=(0, 1))
    a = lab.tile(shape, "f32", lab.randn(shape))
    b = lab.tile(shape, "f32", torch.tensor(-torch.inf), repeat=(0, 1, 2))
    want = torch.where(cond.values() != 0, a.values(), b.values())
    lab.run(lab.vector("v_select", dst=a, cond=cond, a=a, b=b)).expect(a, want)


def test_empty(lab):
    a = lab.tile((2, 3, 4), "f32")
    got = lab.run(lab.vector("v_select", (2, 0, 4), dst=a, cond=a, a=a, b=a))
    got.expect_memory(got.before)
