"""`npu.matmul`: weights packed as matrix-unit tiles, or a product of two views.

Both walk blocks of rows × column tiles × tiles of K; K in ascending order for every element
of the result, so that a row's result does not depend on what else is in the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.epilogue import Block, Epilogue
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.tiling import MatmulTiling, column_tile, matmul_tiling, share, upper_bound
from opennpu.compiler.kernels.values import View, view_type
from opennpu.compiler.kernels.weights import Packing
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from opennpu.runtime.chip import Chip
from torch_mlir import ir


def emit_matmul(ctx: KernelContext, op: ir.OpView) -> None:
    """x[…,M,K] · w → y[…,M,N] with the op's epilogue."""
    if ctx.is_param(op.w) and len(ctx.param(op.w).shape) == 2:
        name, product = "matmul_packed", _packed(ctx, op)
    else:
        name, product = "matmul_batched", _batched(ctx, op)
    *batch, m, k = product.x.shape
    columns = product.y.shape[-1] * product.epilogue.accumulators
    flops = dim(2 * Sym.of(num_elements(batch)) * m * k * columns)
    weights = Sym.of(num_elements(view_type(op.w)[0])) * product.x.itemsize
    nbytes = dim(weights + product.x.bytes + product.y.bytes)
    with ctx.kernel(op, name, flops, nbytes) as b:
        product.emit(b)


@dataclass(frozen=True)
class Product:
    """The operands of one kernel: x[…,M,K], the result y[…,M,N], sizes of blocks, the epilogue."""

    chip: Chip
    x: View
    y: View
    tiling: MatmulTiling
    epilogue: Epilogue

    def load_block(self, b: TileBuilder, start: Sequence[Index], height: Index) -> TileRef | None:
        """The rows of x from `start` with all of K, where they stay resident."""
        if not self.tiling.resident:
            return None
        k = self.x.shape[-1]
        tile = b.alloc((self.tiling.mt, k), self.x.dtype)
        b.load(tile, self.x, (*start, 0), (height, k))
        return tile

    def multiply(
        self,
        b: TileBuilder,
        acc: TileRef,
        resident: TileRef | None,
        start: Sequence[Index],
        extents: tuple[Index, Index],
        kt: Index,
    ) -> None:
        """acc (+)= the tile of x at (*start, kt·tile) of height × depth · the stationary tile."""
        depth_at = kt * self.tiling.kt
        if resident:
            tile = resident.at(0, depth_at)
        else:
            tile = b.alloc((self.tiling.mt, self.tiling.kt), self.x.dtype)
            b.load(tile, self.x, (*start, depth_at), extents)
        b.mx_mul(acc, tile, extents[0], accumulate=kt)

    def accumulators(self, b: TileBuilder) -> list[TileRef]:
        shape = (self.tiling.mt, self.tiling.nt)
        return [b.alloc(shape, "f32", "acc") for _ in range(self.epilogue.accumulators)]


# ---- packed weights


@dataclass(frozen=True)
class PackedProduct(Product):
    """x[M,K] · a parameter, of which every core has a contiguous share of column tiles.

    `w` is the view [tile][k tile][elements of a block] of the packed parameter.
    """

    w: View
    packing: Packing

    def emit(self, b: TileBuilder) -> None:
        """Rows of x stay in scratchpad while the weights stream by."""
        m, columns = b.sym(self.x.shape[0]), self.y.shape[1]
        mt, nt = self.tiling.mt, self.tiling.nt
        lo, hi = share(b, self.chip, self.packing.tiles // self.epilogue.accumulators)
        with b.loop(0, m, mt) as row:
            height = minimum(mt, m - row)
            resident = self.load_block(b, (row,), height)
            with b.loop(lo, hi) as tile:
                column = tile * nt
                width = _tile_extent(tile, nt, columns)
                accs = self.accumulators(b)
                for half, acc in enumerate(accs):
                    with b.loop(0, self.packing.k_tiles) as kt:
                        depth = _tile_extent(kt, self.tiling.kt, self.packing.k)
                        self._load_weights(b, (tile * len(accs) + half, kt), depth, width)
                        self.multiply(b, acc, resident, (row,), (height, depth), kt)
                self.epilogue.emit(b, accs, self.y, Block((row, column), height, width, mt, nt))

    def _load_weights(self, b: TileBuilder, block: tuple[Index, Index], depth: Index, width: Index) -> None:
        """Makes one block stationary: one contiguous burst, `depth` rounded up to whole pairs."""
        pair = self.packing.pair
        strip = ceildiv(depth, pair) * (pair * self.chip.strip * self.w.itemsize)
        tile = b.alloc((self.packing.block,), self.w.dtype)
        b.dma_load(tile, b.address(self.w, *block), (), strip * (self.packing.nt // self.chip.strip), (), ())
        b.mx_load(tile, "packed", depth, width, strip)


def _packed(ctx: KernelContext, op: ir.OpView) -> PackedProduct:
    transposed = bool(op.transpose_w.value)
    shape = ctx.param(op.w).shape
    n, k = shape if transposed else shape[::-1]
    x = _as_rows(ctx, op, ctx.view(op.x))
    y = _as_rows(ctx, op, ctx.output(op.y))
    epilogue = _epilogue(ctx, op, y)
    halves = epilogue.accumulators
    nt, rows = column_tile(ctx.chip, n // halves), upper_bound(x.shape[0], ctx.ranges)
    tiling = _tiling(ctx, op, rows, k, x, nt, halves)
    pair = ctx.chip.pair if x.dtype == "bf16" else 1
    packing = Packing(n, k, nt, tiling.kt, pair, transpose=not transposed, gate=halves == 2)
    shape, strides = (packing.tiles, packing.k_tiles, packing.block), (packing.column, packing.block, 1)
    w = View(shape, strides, base=ctx.packed(op.w, packing), dtype=x.dtype)
    return PackedProduct(ctx.chip, x, y, tiling, epilogue, w, packing)


def _tile_extent(index: Index, tile: int, extent: int) -> Index:
    """The extent of tile `index`; the last may be short."""
    return tile if extent % tile == 0 else minimum(tile, extent - index * tile)


# ---- products of two views


@dataclass(frozen=True)
class BatchedProduct(Product):
    """x[…,M,K] · w[…,K,N]; batch × blocks of rows are dealt to the cores.

    `ws` are the views of w that a column tile needs: w, or its gate and its up columns.
    """

    ws: tuple[View, ...]

    def emit(self, b: TileBuilder) -> None:
        batch, (m, k) = self.x.shape[:-2], (b.sym(extent) for extent in self.x.shape[-2:])
        n, mt, nt = b.sym(self.y.shape[-1]), self.tiling.mt, self.tiling.nt
        blocks = ceildiv(m, mt)
        lo, hi = share(b, self.chip, b.sym(num_elements(batch)) * blocks)
        with b.loop(lo, hi) as item:
            at = _unravel(b, item // blocks, batch)
            row = item % blocks * mt
            height = minimum(mt, m - row)
            resident = self.load_block(b, (*at, row), height)
            with b.loop(0, n, nt) as column:
                width = minimum(nt, n - column)
                accs = self.accumulators(b)
                for w, acc in zip(self.ws, accs, strict=True):
                    with b.loop(0, ceildiv(k, self.tiling.kt)) as kt:
                        depth = minimum(self.tiling.kt, k - kt * self.tiling.kt)
                        start = (*at[len(at) + 2 - w.rank :], kt * self.tiling.kt, column)
                        self._load_stationary(b, w, start, depth, width)
                        self.multiply(b, acc, resident, (*at, row), (height, depth), kt)
                self.epilogue.emit(b, accs, self.y, Block((*at, row, column), height, width, mt, nt))

    def _load_stationary(
        self, b: TileBuilder, w: View, start: Sequence[Index], depth: Index, width: Index
    ) -> None:
        """Makes w[start…] of depth × width stationary, by rows of K or of N, whichever lie dense."""
        kt, nt = self.tiling.kt, self.tiling.nt
        if w.strides[-1] == 1:
            tile = b.alloc((kt, nt), w.dtype)
            b.load(tile, w, start, (depth, width))
            b.mx_load(tile, "kn", depth, width, tile.strides[1])
        else:
            tile = b.alloc((nt, kt), w.dtype)
            b.load(tile, _swap_last(w), (*start[:-2], start[-1], start[-2]), (width, depth))
            b.mx_load(tile, "nk", depth, width, tile.strides[1])


def _batched(ctx: KernelContext, op: ir.OpView) -> BatchedProduct:
    x, w = ctx.view(op.x), ctx.view(op.w)
    x = x if x.strides[-1] == 1 else movement.materialise(ctx, op, x)
    w = w if 1 in w.strides[-2:] else movement.materialise(ctx, op, w)
    w = _swap_last(w) if op.transpose_w.value else w
    y = ctx.output(op.y)
    epilogue = _epilogue(ctx, op, y)
    columns = y.shape[-1]
    ws = tuple(
        views.slice_dim(w, w.rank - 1, half * columns, columns) for half in range(epilogue.accumulators)
    )
    rows, k = upper_bound(x.shape[-2], ctx.ranges), x.shape[-1]
    static_k = k if isinstance(k, int) else None
    tiling = _tiling(ctx, op, rows, static_k, x, ctx.chip.mx_n, epilogue.accumulators)
    return BatchedProduct(ctx.chip, x, y, tiling, epilogue, ws)


def _tiling(
    ctx: KernelContext, op: ir.OpView, rows: int | None, k: int | None, x: View, nt: int, accumulators: int
) -> MatmulTiling:
    """`matmul_tiling`, which must leave a row. Raises CompileError."""
    chip = ctx.chip
    tiling = matmul_tiling(chip, rows, k, x.itemsize, nt, accumulators)
    if tiling.mt < 1:
        what = (
            f"'{op.operation.name}': not one row fits {chip.name} beside tiles of {chip.mx_k} × {nt} "
            f"{x.dtype}: the scratchpad has {chip.spm_bytes} bytes, the accumulator {chip.acc_bytes}"
        )
        remedy = "choose a chip with a larger memory.spm_kib or memory.acc_kib, or a smaller matrix unit"
        raise CompileError(Problem(what, describe(op.location), remedy))
    return tiling


def _unravel(b: TileBuilder, index: Index, shape: Sequence[Dim]) -> tuple[Index, ...]:
    """The index along each batch dimension of the flat index."""
    at: list[Index] = []
    for extent in reversed(shape[1:]):
        at.insert(0, index % b.sym(extent))
        index = index // b.sym(extent)
    return (index, *at) if shape else ()


# ---- shared by both


def _epilogue(ctx: KernelContext, op: ir.OpView, y: View) -> Epilogue:
    extra = tuple(_like(ctx, op, ctx.view(value), y) for value in op.extra)
    return Epilogue(tuple(op.steps), extra, y.shape[-1])


def _like(ctx: KernelContext, op: ir.OpView, view: View, y: View) -> View:
    """A residual in the extents of y; a bias as it is."""
    if view.rank <= 1 or view.rank == y.rank:
        return view
    return views.reshape(view, y.shape) or views.reshape(movement.materialise(ctx, op, view), y.shape)


def _as_rows(ctx: KernelContext, op: ir.OpView, x: View) -> View:
    """x as a matrix [rows, K] whose rows lie dense."""
    shape = (num_elements(x.shape[:-1]), x.shape[-1])
    flat = views.reshape(x, shape)
    if flat is None or (flat.strides[-1] != 1 and shape[-1] != 1):
        flat = views.reshape(movement.materialise(ctx, op, x), shape)
    return flat


def _swap_last(view: View) -> View:
    return views.transpose(view, (*range(view.rank - 2), view.rank - 1, view.rank - 2))
