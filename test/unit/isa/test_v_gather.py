"""v_gather against torch.gather."""

import pytest
import torch


@pytest.mark.parametrize("index_dtype", ["i64", "i32", "i8"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "i64"])
def test_along_the_last_dimension(lab, dtype, index_dtype):
    d0, d1, count = lab.shape()
    limit = lab.number(1, 60)
    a = lab.tile((d0, d1, limit), dtype, lab.values(dtype, (d0, d1, limit)), space="spm")
    index = lab.tile((d0, d1, count), index_dtype, lab.randint(0, limit, (d0, d1, count)), space="spm")
    dst = lab.tile((d0, d1, count), dtype, space="spm")
    want = torch.gather(a.values(), 2, index.values().long())
    lab.run(lab.vector("v_gather", dst=dst, a=a, index=index, limit=limit)).expect(dst, want)


def test_broadcast_and_cast(lab):
    a = lab.tile((2, 3, 9), "bf16", lab.randn((1, 1, 9)), repeat=(0, 1))
    index = lab.tile((2, 3, 5), "i32", lab.randint(0, 9, (2, 1, 5)), repeat=(1,))
    dst = lab.tile((2, 3, 5), "f32")
    want = torch.gather(a.values(), 2, index.values().long()).float()
    lab.run(lab.vector("v_gather", dst=dst, a=a, index=index, limit=9)).expect(dst, want)


def test_empty(lab):
    a, index = lab.tile((2, 3, 4), "f32"), lab.tile((2, 3, 4), "i32")
    got = lab.run(lab.vector("v_gather", (2, 3, 0), dst=a, a=a, index=index, limit=4))
    got.expect_memory(got.before)
