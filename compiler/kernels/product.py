"""Tiles of x·w through an epilogue: how one block of rows meets one tile of columns.

The weights are packed as matrix-unit tiles, or a view with any strides. K goes in ascending
order for every element of the result, so that a row's result does not depend on what else is
in the batch. Who takes which block and tile say `matmul.py` and `grouped_matmul.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.epilogue import Block, Epilogue
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.tiling import MatmulTiling
from opennpu.compiler.kernels.values import View
from opennpu.compiler.kernels.weights import Packing
from opennpu.runtime.chip import Chip


@dataclass(frozen=True)
class Rows:
    """A block of rows: the first (batch…, row), how many, and their tile where it holds all of K."""

    start: tuple[Index, ...]
    height: Index
    resident: TileRef | None


@dataclass(frozen=True)
class Product(ABC):
    """x[…,M,K], the result y[…,M,N], sizes of blocks, the epilogue."""

    chip: Chip
    x: View
    y: View
    tiling: MatmulTiling
    epilogue: Epilogue

    def columns(self, b: TileBuilder) -> Index:
        """How many column tiles there are."""
        return ceildiv(b.sym(self.y.shape[-1]), self.tiling.nt)

    def rows(self, b: TileBuilder, start: tuple[Index, ...], end: Index) -> Rows:
        """The block of rows that begins at `start`, within the rows before `end`."""
        height = minimum(self.tiling.mt, end - start[-1])
        if not self.tiling.resident:
            return Rows(start, height, None)
        tile = b.alloc((self.tiling.mt, self.tiling.k), self.x.dtype)
        b.load(tile, self.x, (*start, 0), (height, b.sym(self.x.shape[-1])))
        return Rows(start, height, tile)

    def emit(self, b: TileBuilder, rows: Rows, matrix: tuple[Index, ...], tile: Index) -> None:
        """The column tile of the rows' results; `matrix` picks among several w."""
        shape = (self.tiling.mt, self.tiling.nt)
        accs = [b.alloc(shape, "f32", "acc") for _ in range(self.epilogue.accumulators)]
        column = tile * self.tiling.nt
        width = tile_extent(tile, self.tiling.nt, b.sym(self.y.shape[-1]))
        for half, acc in enumerate(accs):
            if self.x.shape[-1] == 0:
                b.fill(acc, 0.0, (rows.height, width))
            else:
                self.accumulate(b, acc, rows, matrix, tile, half, width)
        block = Block((*rows.start, column), rows.height, width, *shape)
        self.epilogue.emit(b, accs, self.y, block)

    @abstractmethod
    def accumulate(
        self,
        b: TileBuilder,
        acc: TileRef,
        rows: Rows,
        matrix: tuple[Index, ...],
        tile: Index,
        half: int,
        width: Index,
    ) -> None:
        """acc = the rows of x · the tile of w; `half`: of its gate columns (0) or its up columns (1)."""

    def depth(self, b: TileBuilder, rows: Rows, at: Index, size: Index) -> TileRef:
        """The tile of the rows' x from depth `at`."""
        if rows.resident:
            return rows.resident.at(0, at)
        tile = b.alloc((self.tiling.mt, self.tiling.kt), self.x.dtype)
        b.load(tile, self.x, (*rows.start, at), (rows.height, size))
        return tile


@dataclass(frozen=True)
class PackedProduct(Product):
    """w is a packed parameter, seen as [matrix…][tile][k tile][elements of a block]."""

    w: View
    packing: Packing

    def accumulate(self, b, acc, rows, matrix, tile, half, width) -> None:
        with b.loop(0, self.packing.k_tiles) as kt:
            size = tile_extent(kt, self.tiling.kt, self.packing.k)
            at = (*matrix, tile * self.epilogue.accumulators + half, kt)
            self._make_stationary(b, at, size, width)
            b.mx_mul(acc, self.depth(b, rows, kt * self.tiling.kt, size), rows.height, accumulate=kt)

    def _make_stationary(self, b: TileBuilder, block: Sequence[Index], depth: Index, width: Index) -> None:
        """One contiguous burst, `depth` rounded up to whole pairs."""
        pair = self.packing.pair
        strip = ceildiv(depth, pair) * (pair * self.chip.strip * self.w.itemsize)
        tile = b.alloc((self.packing.block,), self.w.dtype)
        b.dma_load(tile, b.address(self.w, *block), (), strip * (self.packing.nt // self.chip.strip), (), ())
        b.mx_load(tile, "packed", depth, width, strip)


@dataclass(frozen=True)
class StridedProduct(Product):
    """w[matrix…,K,N] with any strides, one of them 1 along K or N."""

    w: View

    def accumulate(self, b, acc, rows, matrix, tile, half, width) -> None:
        """A DMA brings as many stationary tiles as fit, by rows of K or of N, whichever lie dense."""
        k, chunk, unit = b.sym(self.x.shape[-1]), self.tiling.kt, self.chip.mx_k
        column = tile * self.tiling.nt + b.sym(self.y.shape[-1]) * half
        with b.loop(0, k, chunk) as at:
            size = minimum(chunk, k - at)
            x = self.depth(b, rows, at, size)
            w, layout = self._load(b, (*matrix, at, column), size, width)
            with b.loop(0, size, unit) as inner:
                place = (inner, 0) if layout == "kn" else (0, inner)
                b.mx_load(w.at(*place), layout, minimum(unit, size - inner), width, w.strides[1])
                b.mx_mul(acc, x.at(0, inner), rows.height, accumulate=at + inner)

    def _load(
        self, b: TileBuilder, start: Sequence[Index], depth: Index, width: Index
    ) -> tuple[TileRef, str]:
        """w[start…] of depth × width in scratchpad, and its layout."""
        chunk, nt = self.tiling.kt, self.tiling.nt
        if self.w.strides[-1] == 1:
            tile = b.alloc((chunk, nt), self.w.dtype)
            b.load(tile, self.w, start, (depth, width))
            return tile, "kn"
        tile = b.alloc((nt, chunk), self.w.dtype)
        b.load(tile, swap_last(self.w), (*start[:-2], start[-1], start[-2]), (width, depth))
        return tile, "nk"


def tile_extent(index: Index, tile: int, extent: Index) -> Index:
    """The extent of tile `index`; the last may be short."""
    whole = isinstance(extent, int) and extent % tile == 0
    return tile if whole else minimum(tile, extent - index * tile)


def swap_last(view: View) -> View:
    return views.transpose(view, (*range(view.rank - 2), view.rank - 1, view.rank - 2))
