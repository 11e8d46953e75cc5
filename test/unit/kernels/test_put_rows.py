"""Rows replaced, against PyTorch: any dtype, dynamic counts, rows over one dimension and over two."""

import pytest
import torch
from opennpu.dialects import npu
from tile_cases import OnChip, random

RANGES = {"R": (1, None), "M": (1, None), "W": (1, None)}


@pytest.mark.parametrize("element", ["f32", "bf16", "i64", "i32", "i8", "i1"])
def test_rows_of_any_width(element):
    specs = {"x": (["R", "W"], element), "rows": (["M"], "i64"), "values": (["M", "W"], element)}
    kernel = OnChip(npu.put_rows, specs, RANGES)
    for count, many, width in ((1, 1, 1), (300, 200, 70), (5, 3, 70_000)):
        x, values = random((count, width), element), random((many, width), element)
        rows = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:many]
        symbols = {"R": count, "M": many, "W": width}
        check(kernel(symbols, x=x, rows=rows, values=values), x, rows, values)


def test_rows_of_two_dimensions():
    """Places in pages, whose heads do not lie side by side."""

    def build(x, rows, values):
        heads_last = npu.transpose(x, (0, 2, 1, 3))
        return npu.transpose(npu.put_rows(heads_last, rows, values, leading=2), (0, 2, 1, 3))

    specs = {"x": (["R", 2, 16, 8], "bf16"), "rows": (["M"], "i32"), "values": (["M", 2, 8], "bf16")}
    kernel = OnChip(build, specs, {"R": (1, None), "M": (1, None)})
    x, values = random((5, 2, 16, 8), "bf16"), random((3, 2, 8), "bf16")
    rows = torch.tensor([79, 0, 17], dtype=torch.int32)
    expected = x.transpose(1, 2).reshape(80, 2, 8).index_copy(0, rows.long(), values)
    (y,) = kernel({"R": 5, "M": 3}, x=x, rows=rows, values=values)
    assert torch.equal(y, expected.view(5, 16, 2, 8).transpose(1, 2))


def check(results, x, rows, values):
    assert torch.equal(results[0], x.index_copy(0, rows, values))
