"""Running sums against PyTorch: within a tile, over several, and of few rows and many."""

import pytest
import torch
from opennpu.compiler.kernels.cumsum import WIDTH
from opennpu.dialects import npu
from tile_cases import random


@pytest.mark.parametrize("element", ["f32", "bf16", "i64", "i32", "i8"])
def test_cumsum(kernel_of, element):
    kernel = kernel_of(npu.cumsum, {"x": (["T", "C"], element)}, {"T": (1, None), "C": (1, None)})
    for shape in ((3, 1), (2, 5), (300, 7), (1, WIDTH), (2, 2 * WIDTH + 77)):
        x = random(shape, element)
        (y,) = kernel({"T": shape[0], "C": shape[1]}, x=x)
        expected = (x.double() if x.is_floating_point() else x).cumsum(1).to(x.dtype)
        # f32: sums of up to 1101 terms, each addition off by 2^-24 of the sum; bf16 rounds once.
        rtol, atol = (2**-7, 1e-2) if element == "bf16" else (1e-4, 1e-4) if element == "f32" else (0, 0)
        torch.testing.assert_close(y, expected, rtol=rtol, atol=atol)


def test_columns_and_static_extents(kernel_of):
    """Along another dimension, transposed, as the conversion makes it."""

    def build(x):
        return npu.transpose(npu.cumsum(npu.transpose(x, [0, 2, 1])), [0, 2, 1])

    x = random((2, 600, 3), "i64")
    assert torch.equal(kernel_of(build, {"x": ([2, 600, 3], "i64")})(x=x)[0], x.cumsum(1))


def test_result_does_not_depend_on_other_rows(kernel_of):
    kernel = kernel_of(npu.cumsum, {"x": (["T", 1000], "f32")}, {"T": (1, None)})
    x = random((40, 1000), "f32")
    alone = kernel({"T": 1}, x=x[7:8])[0]
    assert torch.equal(kernel({"T": 40}, x=x)[0][7:8], alone)
