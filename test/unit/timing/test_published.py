"""The timing model against published measurements of TPUs: systolic products and bandwidth-bound vector work.

Sources:
  TPU v4: A. Tang (ayaka14732), "Pallas TPU tutorial", github.com/ayaka14732/pallas-tpu-tutorial: cycles from
  the counter of a TensorCore, for DMA and software pipelines of y = 2x + 1 (chapter 2), and for matrix
  products in VMEM (chapter 1, matmul_mxu/06_jax_pallas_cycles).
  TPU v5e: "Matrix Multiplication" in the documentation of JAX Pallas TPU (docs/pallas/tpu/matmul.ipynb): the
  host's time, so it holds the dispatch.

The chip files take the latency and bandwidth of the TPU v4 from its fits of single DMAs, and the latency of
its matrix unit from one of the products. Everything else is predicted. docs/timing.md has the table;
`python test/unit/timing/test_published.py` prints it.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from image_builder import Affine, image, op
from micro import load, set_flag, store, wait_flag
from opennpu.dialects.isa.encoding import TileOperand
from opennpu.runtime.chip import Chip
from opennpu.runtime.timing import time_image

DATA = Path(__file__).parent / "data"
V4, V5E = Chip.load(DATA / "tpu-v4.toml"), Chip.load(DATA / "tpu-v5e.toml")
ONE = replace(V4, cores=1)  # vector work and DMA know no matrix units
KIB = 1024


@dataclass(frozen=True)
class Row:
    what: str
    measured: float
    predicted: float
    unit: str
    within: float  # the error that we state

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def cycles(chip: Chip, body: list) -> int:
    return time_image(chip, image(*body, chip=chip), []).cycles


# ---- DMA and vector work


def arrived(queue: str, flag: int) -> list:
    """The queue goes on once all before has completed."""
    return [set_flag(queue, flag), wait_flag(queue, flag)]


def copies(kib: int, kind: str, tiles: int = 8) -> float:
    """Cycles a tile of DMAs that are begun together, or one after the other, and waited for."""
    size = kib * KIB
    tile = {
        "read": [load(size), *arrived("load", 0)],
        "write": [store(size), *arrived("store", 1)],
        "read, then write": [
            load(size), set_flag("load", 2), wait_flag("store", 2),
            store(size), set_flag("store", 3), wait_flag("load", 3),
        ],
        "read and write": [
            load(size), store(size), set_flag("load", 4), wait_flag("store", 4),
            *arrived("store", 1), set_flag("store", 5), wait_flag("load", 5),
        ],
        "two reads": [load(size), load(size), *arrived("load", 0)],
    }[kind]  # fmt: skip
    return cycles(ONE, tile * tiles) / tiles


def vector_work(kib: int) -> list:
    """y = 2x + 1 on a tile of f32."""
    tile = TileOperand("spm", "f32", Affine(0), 0, 0, 4)
    extents = {"d0": 1, "d1": 1, "d2": kib * KIB // 4}
    return [op("v_binary", op=name, dst=tile, a=tile, b=tile, **extents) for name in ("mul", "add")]


def pipeline(kib: int, buffered: str) -> int:
    """16 MiB through y = 2x + 1, `kib` at a time. A load begins when the one before it has arrived."""
    tiles, size = 16 * KIB // kib, kib * KIB
    body = [load(size), set_flag("load", 0), set_flag("load", 1)]
    for t in range(tiles):
        if buffered != "nothing" and t + 1 < tiles:
            body += next_load(size, [0, *([3 if buffered == "input" else 4] if t else [])])
        body += [wait_flag("vector", 1)]
        body += [wait_flag("vector", 5)] if t >= (2 if buffered == "both" else 1) else []
        body += [*vector_work(kib), set_flag("vector", 2), wait_flag("store", 2)]
        body += [store(size), set_flag("store", 5)]
        if buffered == "both":
            body += [set_flag("vector", 4)] if t + 2 < tiles else []
        elif t + (2 if buffered == "input" else 1) < tiles:
            body += [set_flag("store", 3)]
        if buffered == "nothing" and t + 1 < tiles:
            body += next_load(size, [0, 3])
    return cycles(
        ONE, [*body, wait_flag("load", 0), *[wait_flag("vector", 5)] * (2 if buffered == "both" else 1)]
    )


def next_load(size: int, waits: list[int]) -> list:
    return [*(wait_flag("load", f) for f in waits), load(size), set_flag("load", 0), set_flag("load", 1)]


# ---- products


def product(rows: int) -> int:
    """bf16[rows,128] · bf16[128,128] in VMEM, rows shared out over the matrix units, at least 16 each."""
    units = min(V4.cores, rows // 16)
    share = op("mx_mul", rows=rows // units)
    body = [op("mx_load", k=128, n=128, dtype="bf16"), share]
    return cycles(replace(V4, cores=units), body)


def matmul(n: int) -> float:
    """Seconds of bf16[n,n] · bf16[n,n] by blocks of 512 × 1024 × 1024, a quarter of the columns for a unit.
    Two blocks of operands are on the chip, one being loaded."""
    columns = 1024 // V5E.cores
    multiply = [op("mx_load", k=128, n=128, dtype="bf16"), op("mx_mul", rows=512, accumulate=1)]
    block = 512 * 1024 // V5E.cores * 2 + 1024 * columns * 2  # bytes: the units share x
    tile = TileOperand("acc", "f32", Affine(0), 0, 0, 4)
    out = TileOperand("spm", "bf16", Affine(0), 0, 0, 2)
    body = [
        *[set_flag("matrix", 1)] * 2,
        set_flag("vector", 3),
        op("loop", rd=2, lo=0, hi=(n // 512) * (n // 1024), step=1),
        wait_flag("matrix", 3),
        op("loop", rd=3, lo=0, hi=n // 1024, step=1),
        wait_flag("load", 1),
        load(block),
        set_flag("load", 0),
        wait_flag("matrix", 0),
        *multiply * (1024 // 128 * columns // 128),
        set_flag("matrix", 1),
        op("end_loop"),
        set_flag("matrix", 2),
        wait_flag("vector", 2),
        op("v_unary", op="copy", dst=out, a=tile, d0=1, d1=1, d2=512 * columns),
        set_flag("vector", 3),
        set_flag("vector", 4),
        wait_flag("store", 4),
        store(512 * columns * 2),
        op("end_loop"),
        *[wait_flag("load", 1)] * 2,
        wait_flag("matrix", 3),
    ]
    return cycles(V5E, body) / (V5E.clock_mhz * 1e6)


# ---- the table

DMAS = {
    "read": (818, 1681),
    "write": (675, 1484),
    "read, then write": (1527, 3191),
    "read and write": (1130, 2836),
    "two reads": (1115, 2807),
}
"""Cycles a tile of 256 KiB and of 1 MiB; the program around them, some 50 cycles, included."""

PIPELINES = (
    ("nothing", 256, 102958),
    ("input", 256, 67660),
    ("both", 256, 67929),
    ("both", 512, 53147),
    ("both", 1024, 43872),
)
PRODUCTS = {16: 176, 128: 211, 1024: 435}
DISPATCH = 127.09e-6 - matmul(1024)
"""Of the host, from the product of 1024³, which takes far less than that; in all times below."""
MATMULS = {4096: 889.1e-6, 8192: 6099.4e-6}


def table() -> list[Row]:
    rows = []
    for kind, pair in DMAS.items():
        for kib, measured in zip((256, 1024), pair, strict=True):
            rows.append(Row(f"TPU v4, {kind}, {kib} KiB", measured, copies(kib, kind), "cycles", 0.12))
    for buffered, kib, measured in PIPELINES:
        what = f"TPU v4, y = 2x + 1 on 16 MiB, tiles of {kib} KiB, {buffered} double-buffered"
        rows.append(Row(what, measured, pipeline(kib, buffered), "cycles", 0.15))
    for m, measured in PRODUCTS.items():
        rows.append(Row(f"TPU v4, [{m}, 128] · [128, 128] in VMEM", measured, product(m), "cycles", 0.12))
    for n, measured in MATMULS.items():
        predicted = DISPATCH + matmul(n)
        rows.append(Row(f"TPU v5e, {n}³ from HBM", 1e6 * measured, 1e6 * predicted, "µs", 0.10))
    return rows


@pytest.mark.parametrize("row", table(), ids=lambda row: row.what)
def test_within_the_stated_error(row):
    assert abs(row.error) <= row.within


def test_the_page_has_the_table():
    page = (Path(__file__).parents[3] / "docs" / "timing.md").read_text()
    for row in table():
        assert line(row) in page


def line(row: Row) -> str:
    return f"| {row.what} | {row.measured:,.0f} {row.unit} | {row.predicted:,.0f} | {row.error:+.1%} |"


if __name__ == "__main__":
    print("\n".join(map(line, table())))
