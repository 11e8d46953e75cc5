"""All memory after random programs of exact instructions: the native engine's is the reference engine's.

Loads from HBM that nothing writes, which the native engine does not copy at once, meet each other, strided
and dense writes, stationary tiles and every kind of reader, in a scratchpad of a few hundred bytes.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
from image_builder import CHIP, READ, WRITE, image, op, r
from opennpu.dialects.isa.encoding import Affine, TileOperand
from opennpu.runtime.device import Device

SPM, CONSTANT = 2048, 4096  # bytes that the programs use
SMALL = replace(CHIP, name="small", cores=1, spm_kib=4, acc_kib=4, mx_k=32, mx_n=32)
CONST, OUT = 2, 3  # registers: addresses of the two buffers


@pytest.mark.parametrize("seed", range(150))
def test_memory_is_the_same(seed):
    data = image(*program(random.Random(seed)), args=(READ, WRITE), chip=SMALL)
    reference, native = (run(engine, data, seed) for engine in ("reference", "native"))
    assert np.array_equal(reference, native), f"byte {np.flatnonzero(reference != native)[0]} differs"


def run(engine: str, data: bytes, seed: int, chip=SMALL) -> np.ndarray:
    """The output buffer: what the program stored, and at its end scratchpad and accumulator."""
    device = Device(chip, engine=engine, hbm_bytes=1 << 20)
    constant, out = device.alloc(CONSTANT), device.alloc(3 * SPM)
    halves = np.random.default_rng(seed).integers(0x3F00, 0x4000, CONSTANT // 2)  # bf16 from 0.5 to 2
    constant.numpy().view(np.uint16)[:] = halves
    out.numpy().view(np.uint16)[:] = 0x3F80
    stream = device.stream()
    stream.launch(device.load(data), [(constant, 0, constant.bytes), (out, 0, out.bytes)])
    stream.synchronize()
    assert np.array_equal(constant.numpy().view(np.uint16), halves)
    return out.numpy().copy()


def program(rng: random.Random) -> list:
    kinds = (
        load,
        load,
        load,
        strided_load,
        written_load,
        gather,
        gathered,
        gathered,
        scatter,
        barrier,
        store,
        stationary,
        multiply,
        vector,
        select,
    )
    steps = []
    for _ in range(rng.randrange(5, 60)):
        made = rng.choice(kinds)(rng)
        steps += made if isinstance(made, list) else [made]
    acc = TileOperand("acc", "f32", Affine(0), 0, 0, 4)
    return [
        op("s_arg", rd=CONST, index=0),
        op("s_arg", rd=OUT, index=1),
        whole(SPM, 0),  # as scratchpad and accumulator have no defined contents
        op("v_unary", op="copy", dst=acc, a=TileOperand("spm", "f32", Affine(0), 0, 0, 4), **vec(SPM // 4)),
        *steps,
        op("dma_store", dst=r(OUT, plus=SPM), src=0, **runs(SPM)),
        op("v_unary", op="copy", dst=TileOperand("spm", "f32", Affine(0), 0, 0, 4), a=acc, **vec(SPM // 4)),
        op("dma_store", dst=r(OUT, plus=2 * SPM), src=0, **runs(SPM)),
    ]


def runs(nbytes: int) -> dict:
    return {"n0": 1, "n1": 1, "n2": 1, "bytes": nbytes}


def vec(n: int) -> dict:
    return {"d0": 1, "d1": 1, "d2": n}


def at(rng: random.Random, nbytes: int, size: int = SPM) -> int:
    """An address of `nbytes` bytes."""
    return 4 * rng.randrange((size - nbytes) // 4 + 1)


def whole(nbytes: int, dst: int, src: int = 0):
    return op("dma_load", dst=dst, src=r(CONST, plus=src), **runs(nbytes))


def load(rng):
    nbytes = 4 * rng.choice((1, 16, 64, 128, 200))
    return whole(nbytes, at(rng, nbytes), at(rng, nbytes, CONSTANT))


def strided_load(rng):
    walk = {"n0": 1, "n1": 1, "n2": 5, "bytes": 64, "ss2": 128, "ds2": rng.choice((64, 96, 128))}
    return op("dma_load", dst=at(rng, 5 * 128), src=r(CONST, plus=at(rng, 5 * 128, CONSTANT)), **walk)


def written_load(rng):
    """From memory that the program also writes."""
    return op("dma_load", dst=at(rng, 256), src=r(OUT, plus=at(rng, 256)), **runs(256))


def row(rng, size: int = SPM) -> int:
    """The address of a row of 32 bytes, so that instructions meet in the same rows."""
    return 32 * rng.randrange((size - 512) // 32)


def gather(rng):
    """Of constants, or of what the program also writes; rows of the matrix unit's tile."""
    pages = {"count": rng.randrange(1, 6), "limit": 1 << 30, "group": 1 << 30, "rows": 3, "row_bytes": 32}
    walk = {"row_stride": rng.choice((32, 64)), "dst_index_stride": rng.choice((96, 96, 128))}
    src = r(rng.choice((CONST, OUT)), plus=row(rng))
    rest = {"dst": row(rng), "dst_row_stride": 32, "index": r(CONST), "index_dtype": "i32"}
    return op("dma_gather", src=src, **pages, **walk, **rest)


def scatter(rng):
    rows = {"count": 1, "limit": 1 << 30, "group": 1 << 30, "rows": 2, "row_bytes": 32, "row_stride": 32}
    src = {"src": row(rng), "src_index_stride": 64, "src_row_stride": 32}
    return op("dma_scatter", dst=r(OUT, plus=row(rng)), index=r(CONST), index_dtype="i32", **rows, **src)


def gathered(rng) -> list:
    """A stationary tile that is rows of a gather, and what may come between."""
    pages = gather(rng)
    src, k, n = pages.fields["dst"], rng.randrange(1, 17), rng.randrange(1, 13)
    k, n, layout = (n, k, "kn") if rng.randrange(2) else (k, n, "nk")
    tile = op("mx_load", src=src, dtype="bf16", layout=layout, k=k, n=n, stride=32)
    between = [kind(rng) for kind in rng.sample((store, scatter, barrier, load, vector), rng.randrange(2))]
    return [pages, *between, tile, multiply(rng)]


def barrier(_rng):
    return op("barrier")


def store(rng):
    return op("dma_store", dst=r(OUT, plus=at(rng, 320)), src=at(rng, 320), **runs(320))


def stationary(rng):
    k, n = rng.randrange(1, 17), rng.randrange(1, 17)
    stride = {"packed": 64 * -(-k // 2), "kn": 32, "nk": 32}
    layout = rng.choice(list(stride))
    return op("mx_load", src=at(rng, 512), dtype="bf16", layout=layout, k=k, n=n, stride=stride[layout])


def multiply(rng):
    rows = rng.randrange(1, 9)
    at_x, at_y = at(rng, 9 * 32), at(rng, 9 * 64)
    return op(
        "mx_mul", dst=at_y, dst_stride=64, src=at_x, src_stride=32, rows=rows, accumulate=rng.randrange(2)
    )


def tile(rng, address: int, stride: int) -> TileOperand:
    return TileOperand(rng.choice(("spm", "spm", "acc")), "f32", Affine(address), 0, stride, 4)


def vector(rng):
    """Rows of 32 bytes, dense or apart; in place or between the halves of the memory."""
    stride, low = rng.choice((32, 48)), at(rng, 300, SPM // 2)
    a = tile(rng, low, stride)
    dst = rng.choice((a, tile(rng, low + SPM // 2, stride)))
    return op("v_unary", op=rng.choice(("neg", "relu", "copy")), dst=dst, a=a, d0=1, d1=6, d2=8)


def select(rng):
    low = at(rng, 300, SPM // 2)
    dst, a = tile(rng, low, 32), tile(rng, low + SPM // 2, 32)
    return op("v_select", dst=dst, cond=a, a=a, b=a, d0=1, d1=6, d2=8)


def test_what_another_core_stores_after_a_barrier():
    """Core 1 stores where both have gathered; what they gathered stays."""
    two = replace(SMALL, cores=2)
    rows = {"count": 1, "limit": 1 << 30, "group": 1 << 30, "rows": 4, "row_bytes": 32, "row_stride": 32}
    data = image(
        op("s_arg", rd=CONST, index=0),
        op("s_arg", rd=OUT, index=1),
        whole(128, 512),
        op("dma_gather", src=r(OUT), index=r(CONST), index_dtype="i32", dst=0, dst_row_stride=32,
           dst_index_stride=128, **rows),
        op("barrier"),
        op("if", cond=r(0)),
        op("dma_store", dst=r(OUT), src=512, **runs(128)),
        op("end_if"),
        op("barrier"),
        op("s_alu", op="mul", rd=4, a=r(0), b=128),
        op("s_alu", op="add", rd=4, a=r(4), b=r(OUT)),
        op("dma_store", dst=r(4, plus=128), src=0, **runs(128)),
        args=(READ, WRITE),
        chip=two,
    )  # fmt: skip
    reference, native = (run(engine, data, 0, two) for engine in ("reference", "native"))
    assert np.array_equal(reference, native)
    assert np.array_equal(native[128:384].view(np.uint16), np.full(128, 0x3F80))
