"""Tiles of x·w through an epilogue: how one block of rows meets one tile of columns.

The weights are packed as matrix-unit tiles, or a view with any strides. K goes in ascending
order for every element of the result, so that a row's result does not depend on what else is
in the batch. Who takes which block and tile say `matmul.py` and `grouped_matmul.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.builder import ALONE, Share, TileBuilder, TileRef
from opennpu.compiler.kernels.epilogue import Block, Epilogue
from opennpu.compiler.kernels.matmul_tiling import MatmulTiling, stream_buffers
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.tiling import tiles
from opennpu.compiler.kernels.values import View
from opennpu.compiler.kernels.weights import Packing
from opennpu.runtime.chip import Chip


@dataclass(frozen=True)
class Rows:
    """A block of rows: the first (batch…, row), how many, and their x where it stays.

    `peers` have other rows and take the same tiles of w.
    """

    start: tuple[Index, ...]
    height: Index
    resident: TileRef | None = None
    peers: Share = ALONE


@dataclass(frozen=True)
class Product(ABC):
    """x[…,M,K], the result y[…,M,N], sizes of blocks, the epilogue."""

    chip: Chip
    x: View
    y: View
    tiling: MatmulTiling
    epilogue: Epilogue

    @property
    def halves(self) -> int:
        return self.epilogue.accumulators

    @property
    def ny(self) -> int:
        """Columns of y to a tile."""
        return self.tiling.nt // self.halves

    def columns(self, b: TileBuilder) -> Index:
        """How many column tiles there are."""
        return ceildiv(b.sym(self.y.shape[-1]), self.ny)

    def width(self, b: TileBuilder, tile: Index) -> Index:
        """How many columns of a tile of w count."""
        if self.halves == 2:
            return self.tiling.nt
        return tile_extent(tile, self.ny, b.sym(self.y.shape[-1]))

    def rows(self, b: TileBuilder, start: tuple[Index, ...], end: Index) -> Rows:
        """The block of rows that begins at `start`, within the rows before `end`."""
        height = minimum(self.tiling.mt, end - start[-1])
        if not self.tiling.resident:
            return Rows(start, height)
        tile = b.alloc((self.tiling.mt, self.tiling.k), self.x.dtype)
        b.load(tile, self.x, (*start, 0), (height, b.sym(self.x.shape[-1])))
        return Rows(start, height, tile)

    def emit(self, b: TileBuilder, rows: Rows, matrix: tuple[Index, ...], tile: Index) -> None:
        """The column tile of the rows' results; `matrix` picks among several w."""
        acc = b.alloc((self.tiling.mt, self.tiling.nt), "f32", "acc")
        if self.x.shape[-1] == 0:
            b.fill(acc, 0.0, (rows.height, self.tiling.nt))
        else:
            self.accumulate(b, acc, rows, matrix, tile)
        self.finish(b, acc, rows, tile)

    def finish(self, b: TileBuilder, sums: TileRef, rows: Rows, tile: Index) -> None:
        """The epilogue of a tile of sums, `result_rows` at a time."""
        width = tile_extent(tile, self.ny, b.sym(self.y.shape[-1]))
        most = self.tiling.result_rows(self.chip)
        with tiles(b, rows.height, most, self.tiling.mt) as (at, height):
            *batch, row = rows.start
            block = Block((*batch, row + at, tile * self.ny), height, width, most, self.ny)
            halves = [sums.at(at, half * self.ny) for half in range(self.halves)]
            self.epilogue.emit(b, halves, self.y, block)

    @abstractmethod
    def accumulate(
        self,
        b: TileBuilder,
        acc: TileRef,
        rows: Rows,
        matrix: tuple[Index, ...],
        tile: Index,
    ) -> None:
        """acc = the rows of x · the tile of w."""

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

    def accumulate(self, b, acc, rows, matrix, tile) -> None:
        self.add(b, acc, rows, matrix, tile, 0, self.packing.k)

    def add(
        self,
        b: TileBuilder,
        acc: TileRef,
        rows: Rows,
        matrix: tuple[Index, ...],
        tile: Index,
        first: Index,
        size: Index,
    ) -> None:
        """acc += x · w over `size` of K from `first` on, where a resident x begins; from 0 on acc = x · w."""
        kt = self.tiling.kt
        with b.loop(0, size, kt) as at:
            depth = kt if self.packing.k % kt == 0 else minimum(kt, size - at)
            w = self.load_weights(b, (*matrix, tile), first + at, depth, rows.peers)
            self.make_stationary(b, w, depth, self.width(b, tile))
            b.mx_mul(acc, self.depth(b, rows, at, depth), rows.height, accumulate=first + at)

    def load_weights(
        self, b: TileBuilder, column: Sequence[Index], at: Index, depth: Index, share: Share
    ) -> TileRef:
        """A stationary tile: of the column tile `depth` from `at` on, in one contiguous burst."""
        tile = b.alloc(
            (self.tiling.kt * self.tiling.nt,),
            self.w.dtype,
            slots=stream_buffers(self.chip, self.tiling.nt * self.w.itemsize),
        )
        nbytes = self._strip(depth) * (self.tiling.nt // self.chip.strip)
        address = b.address(self.w, *column) + at * (self.tiling.nt * self.w.itemsize)
        b.dma_load(tile, address, (), nbytes, (), (), share)
        return tile

    def make_stationary(self, b: TileBuilder, w: TileRef, depth: Index, width: Index) -> None:
        b.mx_load(w, "packed", depth, width, self._strip(depth))

    def _strip(self, depth: Index) -> Index:
        """The bytes of a strip, `depth` rounded up to whole pairs."""
        pair = self.packing.pair
        return ceildiv(depth, pair) * (pair * self.chip.strip * self.w.itemsize)


@dataclass(frozen=True)
class StridedProduct(Product):
    """w[matrix…,K,N] with any strides, one of them 1 along K or N."""

    w: View

    def accumulate(self, b, acc, rows, matrix, tile) -> None:
        """A DMA brings as many stationary tiles as fit, by rows of K or of N, whichever lie dense."""
        k, chunk, unit = b.sym(self.x.shape[-1]), self.tiling.kt, self.chip.mx_k
        width = tile_extent(tile, self.ny, b.sym(self.y.shape[-1]))
        with b.loop(0, k, chunk) as at:
            size = minimum(chunk, k - at)
            x = self.depth(b, rows, at, size)
            w, layout = self._load(b, matrix, at, tile * self.ny, size, width)
            with b.loop(0, size, unit) as inner:
                place = (inner, 0) if layout == "kn" else (0, inner)
                columns = width + (self.tiling.nt - self.ny)
                b.mx_load(w.at(*place), layout, minimum(unit, size - inner), columns, w.strides[1])
                b.mx_mul(acc, x.at(0, inner), rows.height, accumulate=at + inner)

    def _load(
        self, b: TileBuilder, matrix: tuple[Index, ...], at: Index, column: Index, depth: Index, width: Index
    ) -> tuple[TileRef, str]:
        """w from depth `at` and of each half from `column`, depth × width, in scratchpad, and its layout."""
        chunk, nt = self.tiling.kt, self.tiling.nt
        dense = self.w.strides[-1] == 1
        tile = b.alloc((chunk, nt) if dense else (nt, chunk), self.w.dtype)
        for half in range(self.halves):
            n, place = column + b.sym(self.y.shape[-1]) * half, half * self.ny
            if dense:
                b.load(tile.at(0, place), self.w, (*matrix, at, n), (depth, width))
            else:
                b.load(tile.at(place, 0), swap_last(self.w), (*matrix, n, at), (width, depth))
        return tile, "kn" if dense else "nk"


def tile_extent(index: Index, tile: int, extent: Index) -> Index:
    """The extent of tile `index`; the last may be short."""
    whole = isinstance(extent, int) and extent % tile == 0
    return tile if whole else minimum(tile, extent - index * tile)


def swap_last(view: View) -> View:
    return views.transpose(view, (*range(view.rank - 2), view.rank - 1, view.rank - 2))
