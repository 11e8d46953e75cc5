"""Blocks of rows from the chip's memories, and the split of work over cores."""

from collections.abc import Iterator
from contextlib import contextmanager

from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.dialects.symbols import Dim, Ranges, Sym
from opennpu.runtime.chip import Chip

BUFFERS = 2
"""What a loop allocates may be double-buffered."""


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
