"""v_iota against torch.arange."""

import pytest
import torch
from chip_lab import TORCH_DTYPES


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_steps(lab, dtype):
    dst = lab.tile(lab.shape(), dtype)
    base, *steps = (lab.number(-50, 50) for _ in range(4))
    indices = torch.meshgrid(*map(torch.arange, dst.shape), indexing="ij")
    want = base + sum(i * step for i, step in zip(indices, steps, strict=True))
    want = (want != 0).to(torch.uint8) if dtype == "bool" else want.to(TORCH_DTYPES[dtype])
    fields = {"base": base, "step0": steps[0], "step1": steps[1], "step2": steps[2]}
    lab.run(lab.vector("v_iota", dst=dst, **fields)).expect(dst, want)


def test_wraps(lab):
    dst = lab.tile((1, 1, 3), "i64")
    got = lab.run(lab.vector("v_iota", dst=dst, base=2**63 - 1, step0=0, step1=0, step2=1))
    got.expect(dst, torch.tensor([[[2**63 - 1, -(2**63), -(2**63) + 1]]]))


def test_empty(lab):
    dst = lab.tile((2, 3, 4), "i32")
    got = lab.run(lab.vector("v_iota", (0, 3, 4), dst=dst, base=1, step0=1, step1=1, step2=1))
    got.expect_memory(got.before)
