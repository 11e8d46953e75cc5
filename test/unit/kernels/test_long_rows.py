"""Rows reduced in pieces, because they do not fit in scratchpad or have no bound, against PyTorch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from opennpu.dialects import npu
from opennpu.runtime.chip import Chip
from tile_cases import Compiled, random

SMALL = replace(Chip.load("npu1-lite"), spm_kib=8)
ROW = 5000  # f32: 20 KB
SYMBOLS = {"T": (0, None), "C": (1, None)}


def close(actual, expected):
    """Sums of ROW terms in another order: relative error below ROW · 2^-24; bf16 rounds once."""
    rtol = 2**-7 if actual.dtype == torch.bfloat16 else ROW * 2**-24
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=1e-4, equal_nan=True)


REDUCTIONS = {
    "sum": lambda x: x.sum(-1, dtype=x.dtype),
    "mean": lambda x: x.mean(-1),
    "max": lambda x: x.amax(-1),
    "min": lambda x: x.amin(-1),
    "argmax": lambda x: x.argmax(-1),
}
CASES = [(op, e) for op in REDUCTIONS for e in ("f32", "bf16", "i64", "i8") if op != "mean" or "f" in e]


@pytest.mark.parametrize(("op", "element"), CASES)
def test_reductions(kernel_of, op, element):
    x = random((3, ROW), element)
    kernel = kernel_of(lambda x: npu.reduce(op, x, 1), {"x": ([3, ROW], element)}, chip=SMALL)
    close(kernel(x=x)[0], REDUCTIONS[op](x))


@pytest.mark.parametrize("op", REDUCTIONS)
def test_rows_without_a_bound(kernel_of, op):
    kernel = kernel_of(lambda x: npu.reduce(op, x, 1, True), {"x": (["T", "C"], "f32")}, SYMBOLS, SMALL)
    for shape in ((2, ROW), (3, 1), (40, 70)):
        x = random(shape, "f32")
        close(kernel({"T": shape[0], "C": shape[1]}, x=x)[0], REDUCTIONS[op](x).unsqueeze(1))


def test_columns(kernel_of):
    """Along the first dimension, whose elements lie apart."""
    specs = {"x": (["C", "T"], "f32")}
    kernel = kernel_of(lambda x: (npu.reduce("sum", x, 0), npu.reduce("argmax", x, 0)), specs, SYMBOLS, SMALL)
    for shape in ((ROW, 3), (50, 130)):
        x = random(shape, "f32")
        total, first = kernel({"C": shape[0], "T": shape[1]}, x=x)
        close(total, x.sum(0))
        close(first, x.argmax(0))


def test_no_number_anywhere_in_the_row(kernel_of):
    x = random((3, ROW), "f32")
    x[1, 4000] = x[1, 4500] = float("nan")
    x[2] = 7.0

    def build(x):
        return [npu.reduce(op, x, 1) for op in ("max", "min", "argmax")]

    greatest, least, first = kernel_of(build, {"x": ([3, ROW], "f32")}, chip=SMALL)(x=x)
    close(greatest, x.amax(1))
    close(least, x.amin(1))
    assert first.tolist() == [int(x[0].argmax()), 4000, 0]


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_softmax_and_norms(kernel_of, element):
    x, w, b = (random((n, ROW) if n else (ROW,), element, n) for n in (3, 0, 0))
    specs = {"x": ([3, ROW], element), "w": ([ROW], element), "b": ([ROW], element)}

    def build(x, w, b):
        return npu.softmax(x), npu.rms_norm(x, w, 1e-5), npu.layer_norm(x, w, b, 1e-5)

    softmax, rms, layer = kernel_of(build, specs, chip=SMALL)(x=x, w=w, b=b)
    close(softmax, F.softmax(x, -1))
    close(rms, F.rms_norm(x.float(), (ROW,), w.float(), 1e-5).to(x.dtype))
    close(layer, F.layer_norm(x, (ROW,), w, b, 1e-5))


def test_reduction_of_what_repeats(kernel_of):
    """The sum of an expanded row is the same for every row, and stored for each."""

    def build(x):
        wide = npu.broadcast_to(x, [3, ROW])
        return npu.reduce("sum", wide, 1)

    x = random((1, ROW), "f32")
    close(kernel_of(build, {"x": ([1, ROW], "f32")}, chip=SMALL)(x=x)[0], x.sum(1).expand(3))


def test_fused_group():
    """Two reductions, one after the other, and what is element by element around them."""

    def build(x, y):
        shifted = npu.binary("sub", x, npu.reduce("max", x, 1, True))
        e = npu.unary("exp", shifted)
        return npu.binary("mul", npu.binary("div", e, npu.reduce("sum", e, 1, True)), y), shifted

    x, y = random((4, ROW), "f32"), random((4, ROW), "f32", 1)
    specs = {"x": ([4, "C"], "f32"), "y": ([4, "C"], "f32")}
    product, shifted = Compiled(build, specs, SYMBOLS, SMALL, fuse=True)({"T": 0, "C": ROW}, x=x, y=y)
    close(product, F.softmax(x, 1) * y)
    close(shifted, x - x.amax(1, True))


def test_result_does_not_depend_on_other_rows(kernel_of):
    kernel = kernel_of(lambda x: npu.reduce("sum", x, 1), {"x": (["T", "C"], "f32")}, SYMBOLS, SMALL)
    x = random((40, ROW), "f32")
    together = kernel({"T": 40, "C": ROW}, x=x)[0]
    alone = torch.cat([kernel({"T": 1, "C": ROW}, x=row[None])[0] for row in x[::13]])
    assert torch.equal(together[::13], alone)


def test_the_report_tells_which_rows_are_cut():
    specs = {"x": (["T", "C"], "f32")}
    assert Compiled(npu.softmax, specs, SYMBOLS).signature["report"][0]["cut"] == "C"
    bounded = Compiled(npu.softmax, specs, {"T": (1, None), "C": (1, 1024)})
    assert ["cut" in entry for entry in bounded.signature["report"]] == [False]
