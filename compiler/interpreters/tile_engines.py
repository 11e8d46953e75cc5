"""The engine ops of `npu_tile`: one function an instruction of `isa.toml`, named like it.

A function gets the core that runs it and the fields of its row by name: an operand on the chip is
an `Operand`, every other field a number or a name.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from opennpu.compiler.interpreters.tile_elements import REDUCE, binary, f32, lane_sum, narrow, unary
from opennpu.compiler.interpreters.tile_memory import Hbm, Operand, TileFault
from opennpu.runtime.chip import Chip
from opennpu.runtime.signature import ITEMSIZE

ENGINES: dict[str, Callable] = {}


@dataclass
class Core:
    """A core: its number, what it shares with the others, and its stationary tile, float64 [k][n]."""

    number: int
    chip: Chip
    hbm: Hbm
    memories: dict[str, np.ndarray]
    flags: dict[int, int] = field(default_factory=dict)
    stationary: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    stationary_dtype: str = "f32"


def engine(function: Callable) -> Callable:
    ENGINES[function.__name__] = function
    return function


# ---- load and store queues


@engine
def dma_load(
    core: Core, dst: Operand, src, n0, n1, n2, bytes, ss0, ss1, ss2, ds0, ds1, ds2, share, share_stride
):  # fmt: skip
    if share > 1:
        _check_sharing(core, share, share_stride)
    dims = (n0, n1, n2, bytes)
    data = core.hbm.read(src, dims, (ss0, ss1, ss2, 1))
    dst.bytes(dims, (ds0, ds1, ds2, 1))[...] = data


def _check_sharing(core: Core, share: int, stride: int) -> None:
    """The core gets the bytes as if the load were its own."""
    if share > core.chip.share_cores or stride < 1:
        most = core.chip.share_cores
        raise TileFault(f"a load for {share} cores, {stride} apart: at most {most} share one")
    first = core.number - core.number // stride % share * stride
    if stride >= core.chip.cores or first + (share - 1) * stride >= core.chip.cores:
        raise TileFault(f"a load for {share} cores, {stride} apart from core {first} on: not all exist")


@engine
def dma_store(core: Core, dst, src: Operand, n0, n1, n2, bytes, ss0, ss1, ss2, ds0, ds1, ds2):
    data = src.bytes((n0, n1, n2, bytes), (ss0, ss1, ss2, 1))
    core.hbm.write(dst, (ds0, ds1, ds2, 1), data, core.number, src.dtype)


@engine
def dma_gather(
    core: Core, dst: Operand, src, index, index_dtype, count, rows, row_bytes, row_stride,
    dst_index_stride, dst_row_stride, **places,
):  # fmt: skip
    rows_of = dst.bytes((count, rows, row_bytes), (dst_index_stride, dst_row_stride, 1))
    for i, start in enumerate(_places(core, src, index, index_dtype, count, **places)):
        rows_of[i] = core.hbm.read(start, (rows, row_bytes), (row_stride, 1))


@engine
def dma_scatter(
    core: Core, dst, src: Operand, index, index_dtype, count, rows, row_bytes, row_stride,
    src_index_stride, src_row_stride, **places,
):  # fmt: skip
    rows_of = src.bytes((count, rows, row_bytes), (src_index_stride, src_row_stride, 1))
    for i, start in enumerate(_places(core, dst, index, index_dtype, count, **places)):
        # Several indices may be equal, the padding of a batch for instance.
        core.hbm.write(start, (row_stride, 1), rows_of[i], core.number, src.dtype, shared=True)


def _places(core: Core, table, index, index_dtype, count, limit, group, group_stride, index_stride):
    """Where the rows of each index start in HBM."""
    if count > 0 and group < 1:
        raise TileFault(f"group is {group}")
    for x in core.hbm.integers(index, count, index_dtype).tolist():
        if not 0 <= x < limit:
            raise TileFault(f"index {x} is outside of [0, {limit})")
        yield table + x // group * group_stride + x % group * index_stride


# ---- matrix queue


@engine
def mx_load(core: Core, src: Operand, dtype, layout, k, n, stride):
    chip = core.chip
    if not (0 <= k <= chip.mx_k and 0 <= n <= chip.mx_n):
        raise TileFault(f"a stationary tile of {k} × {n}; the chip's is {chip.mx_k} × {chip.mx_n}")
    size = ITEMSIZE[dtype]
    if layout == "kn":
        tile = src.load((k, n, 1), (stride, size, 0))[:, :, 0]
    elif layout == "nk":
        tile = src.load((n, k, 1), (stride, size, 0))[:, :, 0].T
    else:
        tile = _unpacked(src, chip.strip, chip.pair if dtype == "bf16" else 1, size, k, n, stride)
    core.stationary, core.stationary_dtype = tile.copy(), dtype


def _unpacked(src: Operand, strip: int, pair: int, size: int, k: int, n: int, stride: int) -> np.ndarray:
    """[strips][pairs][strip][pair] as [k][n]."""
    strips, pairs = -(-n // strip), -(-k // pair)
    tile = src.load((strips, pairs, strip, pair), (stride, strip * pair * size, pair * size, size))
    return tile.transpose(1, 3, 0, 2).reshape(pairs * pair, strips * strip)[:k, :n]


@engine
def mx_mul(core: Core, dst: Operand, dst_stride, src: Operand, src_stride, rows, accumulate):
    w = core.stationary
    k, n = w.shape
    source = replace(src, dtype=core.stationary_dtype)
    strides = (dst_stride, 4, 0)
    acc = dst.load((rows, n, 1), strides)[:, :, 0]
    x = source.load((rows if n else 0, k, 1), (src_stride, ITEMSIZE[source.dtype], 0))[:, :, 0]
    if not accumulate:
        acc = np.zeros_like(acc)
    for i in range(k if acc.size else 0):  # one fused multiply-add a term: the product is exact in float64
        acc = f32(acc + x[:, i : i + 1] * w[i])
    dst.store(acc[:, :, None], strides)


# ---- vector queue


@engine
def v_fill(core: Core, dst: Operand, d0, d1, d2, value):
    kind = np.float64 if isinstance(value, float) else np.int64
    dst.store(np.full(_extents(d0, d1, d2), value, kind))


@engine
def v_iota(core: Core, dst: Operand, d0, d1, d2, base, step0, step1, step2):
    i0, i1, i2 = np.indices(_extents(d0, d1, d2), dtype=np.int64)
    dst.store(base + i0 * step0 + i1 * step1 + i2 * step2)


@engine
def v_unary(core: Core, op, dst: Operand, a: Operand, d0, d1, d2):
    dst.store(unary(op, a.load((d0, d1, d2))))


@engine
def v_binary(core: Core, op, dst: Operand, a: Operand, b: Operand, d0, d1, d2):
    dst.store(binary(op, a.load((d0, d1, d2)), b.load((d0, d1, d2))))


@engine
def v_select(core: Core, dst: Operand, cond: Operand, a: Operand, b: Operand, d0, d1, d2):
    condition, a, b = (x.load((d0, d1, d2)) for x in (cond, a, b))
    dst.put(np.where(condition != 0, narrow(a, dst.dtype), narrow(b, dst.dtype)))


@engine
def v_reduce(core: Core, op, dst: Operand, a: Operand, d0, d1, d2):
    dst.store(REDUCE[op](a.load((d0, d1, d2)))[:, :, None], (*dst.strides[:2], 0))


@engine
def v_softmax_step(
    core: Core, p: Operand, s: Operand, m: Operand, l: Operand, alpha: Operand,  # noqa: E741  the table's name
    rows, n, scale, cap, causal, group, pos, key, window,
):  # fmt: skip
    x = f32(s.load((1, rows, n))[0] * np.float32(scale))
    if cap:
        x = f32(np.float32(cap) * f32(np.tanh(f32(x / np.float32(cap)))))
    query = pos + np.arange(x.shape[0])[:, None] // group
    age = query - (key + np.arange(x.shape[1]))
    seen = ((causal == 0) | (age >= 0)) & ((window == 0) | (age < window))

    vector = ((1, 1, rows), (0, 0, 4))
    before, sums = (operand.load(*vector)[0, 0] for operand in (m, l))
    greatest = np.maximum(before, np.where(seen, x, -np.inf).max(-1, initial=-np.inf))
    none = greatest == -np.inf
    factor = np.where(none, 1, f32(np.exp(f32(before - greatest))))
    weights = np.where(seen & ~none[:, None], f32(np.exp(f32(x - greatest[:, None]))), 0)
    for operand, value in ((m, greatest), (l, f32(f32(sums * factor) + lane_sum(weights))), (alpha, factor)):
        operand.store(value[None, None], vector[1])
    p.store(weights[None])


@engine
def v_transpose(core: Core, dst: Operand, a: Operand, d0, d1, d2):
    if dst.dtype != a.dtype:
        raise TileFault(f"a transpose does not cast: dst is {dst.dtype}, a is {a.dtype}")
    dst.store(a.load((d0, d1, d2)).swapaxes(1, 2))


@engine
def v_gather(core: Core, dst: Operand, a: Operand, index: Operand, d0, d1, d2, limit):
    picks = index.load((d0, d1, d2))
    if picks.size and not (picks.min() >= 0 and picks.max() < limit):
        raise TileFault(f"an index of {picks.min()} … {picks.max()} is outside of [0, {limit})")
    rows = a.load((d0, d1, limit if picks.size else 0))
    dst.store(np.take_along_axis(rows, picks, -1) if picks.size else rows[..., :0])


def _extents(*extents: int) -> tuple[int, ...]:
    return tuple(max(0, n) for n in extents)
