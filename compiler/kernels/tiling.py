"""Tile sizes from the chip's memories, and the split of work over cores."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.dialects.symbols import Dim, Ranges, Sym
from opennpu.runtime.chip import Chip

BUFFERS = 2
"""What a loop allocates may be double-buffered."""

STREAM_BUFFERS = 4
"""Tiles of w, where an eighth of scratchpad holds as many; npu-tile-double-buffer gives them what is left."""

NARROWER_PAYS = 1.05
"""A narrower column tile must save a core more than this: it has shorter bursts and more of them."""


@dataclass(frozen=True)
class MatmulTiling:
    """Blocks of y[M,N] = x[M,K]·w[K,N].

    `mt` rows of x at a time, `nt` columns, `kt` of K to a tile of w. `k`: where a block of x
    holds all of K while the columns pass, the greatest K; None where x comes tile by tile.
    """

    mt: int
    nt: int
    kt: int
    k: int | None

    @property
    def resident(self) -> bool:
        return self.k is not None


def matmul_tiling(
    chip: Chip, m: int | None, k: int | None, itemsize: int, nt: int, accumulators: int = 1, kt: int = 0
) -> MatmulTiling:
    """The tiling for at most m rows and k deep (None: unbounded), elements of `itemsize` bytes.

    `accumulators` tiles of the product live at a time (two with a gate); `kt` is the depth of
    a tile of w, by default one stationary tile's. Rows are bounded by the accumulator, and by
    the scratchpad: x once, tiles of w, and f32-sized tiles of the result and of a residual.
    `mt` < 1 where not one row fits.
    """
    kt = kt or chip.mx_k
    by_acc = chip.acc_bytes // (BUFFERS * accumulators * nt * 4)
    most = min(by_acc, max(m, 1)) if m is not None else by_acc
    w = kt * nt * itemsize
    stream = STREAM_BUFFERS if STREAM_BUFFERS * w <= chip.spm_bytes // 8 else BUFFERS
    rest = chip.spm_bytes - stream * w - BUFFERS * accumulators * nt * 4
    per_row = 2 * BUFFERS * nt * 4
    if k:
        rows = rest // (k * itemsize + per_row)
        if rows >= min(most, chip.strip):
            return MatmulTiling(_even(min(most, rows)), nt, kt, k)
    streamed = rest // (BUFFERS * kt * itemsize + per_row)
    return MatmulTiling(_even(min(most, streamed)), nt, kt, None)


def depth_tile(chip: Chip, k: int | None, itemsize: int, nt: int) -> int:
    """How much of K (at most k; None: unbounded) one DMA brings of an unpacked w: whole stationary
    tiles, as many as a quarter of the scratchpad has room for twice, so that rows make long bursts."""
    tiles = max(1, chip.spm_bytes // 4 // (BUFFERS * chip.mx_k * nt * itemsize))
    return chip.mx_k * (tiles if k is None else min(tiles, max(1, ceildiv(k, chip.mx_k))))


def column_tile(chip: Chip, n: int) -> int:
    """The widest column tile, a multiple of the strip, that leaves the slowest core next to least to do."""

    def slowest(nt: int) -> int:
        return ceildiv(ceildiv(n, nt), chip.cores) * nt

    widths = range(chip.mx_n, 0, -chip.strip)
    most = NARROWER_PAYS * min(map(slowest, widths))
    return next(nt for nt in widths if slowest(nt) <= most)


def row_block(chip: Chip, row_bytes: int, most: int = 128) -> int:
    """How many rows of `row_bytes` (all tiles of the loop body together) to take at a time."""
    return max(1, min(most, chip.spm_bytes // (BUFFERS * row_bytes)))


def upper_bound(extent: Dim, ranges: Ranges) -> int | None:
    """The greatest value of an extent, None where it has no bound."""
    return Sym.of(extent).upper_bound(ranges)


def share(b: TileBuilder, chip: Chip, total: Index) -> tuple[Index, Index]:
    """This core's contiguous part [lo, hi) of `total` equal pieces of work."""
    if chip.cores == 1:
        return 0, total
    each = ceildiv(total, chip.cores)
    lo = b.core() * each
    return lo, minimum(lo + each, total)


@contextmanager
def core_rows(b: TileBuilder, chip: Chip, total: Index, block: int) -> Iterator[tuple[Index, Index]]:
    """A loop over blocks of this core's share of `total` rows: (first row, rows ≤ block)."""
    lo, hi = share(b, chip, total)
    with b.loop(lo, hi, block) as start:
        yield start, minimum(block, hi - start)


@contextmanager
def tiles(b: TileBuilder, extent: Index, tile: int, most: int) -> Iterator[tuple[Index, Index]]:
    """A loop over tiles of an extent, 0 < extent ≤ most: (start, size); no loop where one tile holds it."""
    if most <= tile:
        yield 0, extent
        return
    with b.loop(0, extent, tile) as start:
        yield start, minimum(tile, extent - start)


def _even(rows: int) -> int:
    """Rounded down to a multiple of 16 where that leaves any."""
    return rows // 16 * 16 or rows
