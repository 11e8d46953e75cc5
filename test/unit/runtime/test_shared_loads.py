"""dma_load with `share`: every core gets its bytes, and loads that cannot meet are told."""

from dataclasses import replace

import numpy as np
import pytest
from image_builder import CHIP, READ, WRITE, image, op, r
from opennpu.dialects.isa.encoding import Affine
from opennpu.runtime.device import Device, NpuError

CORES = 6
GRID = replace(CHIP, name="grid", cores=CORES, share_cores=3, spm_kib=4, acc_kib=4, mx_k=32, mx_n=32)
ROW, IN, OUT = 64, 2, 3  # bytes of a row; registers: addresses of the two buffers
ENGINES = pytest.mark.parametrize("engine", ["reference", "native"])


def load(row: int | Affine, dst: int | Affine = 0, nbytes: int = ROW, share: int = 1, stride: int = 1):
    """A row of the input."""
    row = Affine(row) if isinstance(row, int) else row
    src = Affine(row.imm * ROW, ((IN, 1), *((reg, coef * ROW) for reg, coef in row.terms)))
    counts = {"n0": 1, "n1": 1, "n2": 1}
    return op("dma_load", dst=dst, src=src, bytes=nbytes, **counts, share=share, share_stride=stride)


def run(engine: str, *body) -> np.ndarray:
    """The scratchpad's first three rows of every core, [core][row][byte]; the input's row i holds i."""
    place = Affine(0, ((OUT, 1), (0, 3 * ROW)))
    store = op("dma_store", dst=place, src=0, n0=1, n1=1, n2=1, bytes=3 * ROW)
    arguments = [op("s_arg", rd=IN, index=0), op("s_arg", rd=OUT, index=1)]
    program = image(*arguments, *body, op("barrier"), store, args=(READ, WRITE), chip=GRID)
    device = Device(GRID, engine=engine, hbm_bytes=1 << 20)
    given, out = device.alloc(16 * ROW), device.alloc(CORES * 3 * ROW)
    given.numpy()[:] = np.repeat(np.arange(16, dtype=np.uint8), ROW)
    stream = device.stream()
    stream.launch(device.load(program), [(given, 0, given.bytes), (out, 0, out.bytes)])
    stream.synchronize()
    return out.numpy().reshape(CORES, 3, ROW).copy()


@ENGINES
def test_rows_and_columns_of_a_grid(engine):
    """Two rows of three cores: a load for each row, one for each column, and one of the core's own."""
    got = run(
        engine,
        op("s_alu", op="div", rd=4, a=r(0), b=3),
        op("s_alu", op="mod", rd=5, a=r(0), b=3),
        load(r(4), dst=0, share=3, stride=1),
        load(r(5, plus=8), dst=ROW, share=2, stride=3),
        load(r(0, plus=10), dst=2 * ROW),
    )
    expected = [[core // 3, 8 + core % 3, 10 + core] for core in range(CORES)]
    assert (got == np.array(expected)[:, :, None]).all()


@ENGINES
def test_places_in_scratchpad_may_differ(engine):
    got = run(engine, *(load(row, dst=row * ROW) for row in range(3)), load(9, dst=r(0, 32), share=3))
    for core in range(CORES):
        assert (got[core].reshape(-1)[core * 32 : core * 32 + ROW] == 9).all()


def only(core: int, *body):
    return [op("s_alu", op="eq", rd=6, a=r(0), b=core), op("if", cond=r(6)), *body, op("end_if")]


ROWS, COLUMNS = load(0, share=3), load(1, share=2, stride=3)


@ENGINES
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([load(0, share=4)], "a load for 4 cores, on this chip at most 3 share one"),
        ([load(0, share=2, stride=0)], "share_stride is 0, it must be positive"),
        ([load(0, share=3, stride=3)], "a load for 3 cores, 3 apart from core 0 on: the chip has 6 cores"),
        ([load(0, share=2, stride=1 << 40)], "the chip has 6 cores"),
        (
            [load(r(0), share=2)],
            r"instruction 2 \(dma_load\).* on core 0: the load is shared with core 1, which comes to "
            r"instruction 2 \(dma_load\).* instead: their operands differ",
        ),
        (
            only(4, load(0, share=3)),
            r"instruction 4 \(dma_load\).* on core 4: the load is shared with core 3, which comes to no such "
            "load before its barrier or halt",
        ),
        (
            [
                *(*only(0, ROWS, COLUMNS), *only(1, COLUMNS, ROWS), *only(2, ROWS)),
                *(*only(3, COLUMNS, ROWS), *only(4, ROWS, COLUMNS), *only(5, ROWS)),
            ],
            r"deadlock: instruction \d+ \(dma_load\).* on core 3: the load is shared with core 0, "
            r"which first comes to instruction \d+ \(dma_load\).* with other cores",
        ),
    ],
)
def test_what_cannot_meet(engine, body, message):
    with pytest.raises(NpuError, match=message):
        run(engine, *body)


@ENGINES
def test_every_stretch_between_barriers_for_itself(engine):
    body = [op("loop", rd=7, lo=0, hi=3, step=1), load(r(7), share=3), op("barrier"), op("end_loop")]
    assert (run(engine, *body)[:, 0] == 2).all()
    with pytest.raises(NpuError, match="comes to no such load"):
        run(engine, *only(0, load(0, share=2)), op("barrier"), *only(1, load(0, share=2)))
