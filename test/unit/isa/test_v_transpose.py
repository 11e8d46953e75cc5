"""v_transpose against torch.transpose."""

import pytest
from chip_lab import TORCH_DTYPES


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_swaps_the_last_two(lab, dtype):
    d0, d1, d2 = lab.shape()
    a = lab.tile((d0, d1, d2), dtype, lab.values(dtype, (d0, d1, d2)))
    dst = lab.tile((d0, d2, d1), dtype)
    want = a.values().transpose(1, 2)
    want = (want != 0).to(want.dtype) if dtype == "bool" else want
    lab.run(lab.vector("v_transpose", a.shape, dst=dst, a=a)).expect(dst, want)


def test_broadcast(lab):
    a, dst = lab.tile((2, 5, 7), "f32", lab.randn((1, 1, 7)), repeat=(0, 1)), lab.tile((2, 7, 5), "f32")
    lab.run(lab.vector("v_transpose", a.shape, dst=dst, a=a)).expect(dst, a.values().transpose(1, 2))


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, -1)])
def test_empty(lab, shape):
    a, dst = lab.tile((2, 3, 3), "f32"), lab.tile((2, 3, 3), "f32")
    got = lab.run(lab.vector("v_transpose", shape, dst=dst, a=a))
    got.expect_memory(got.before)
