"""`npu.matmul`: weights packed as matrix-unit tiles, or a product of two views.

Both walk blocks of rows × column tiles × tiles of K; K in ascending order for every element
of the result, so that a row's result does not depend on what else is in the batch.
"""

from collections.abc import Sequence

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.epilogue import Block, Epilogue
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.tiling import MatmulTiling, column_tile, matmul_tiling, share, upper_bound
from opennpu.compiler.kernels.values import View
from opennpu.compiler.kernels.weights import Packing
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from torch_mlir import ir


def emit_matmul(ctx: KernelContext, op: ir.OpView) -> None:
    """x[…,M,K] · w → y[…,M,N] with the op's epilogue."""
    if ctx.is_param(op.w) and len(ctx.param(op.w).shape) == 2:
        emit_packed(ctx, op)
    else:
        emit_batched(ctx, op)


# ---- packed weights


def emit_packed(ctx: KernelContext, op: ir.OpView) -> None:
    """Rows of x stay in scratchpad while this core's share of the weight's column tiles streams by."""
    param = ctx.param(op.w)
    transposed = bool(op.transpose_w.value)
    n, k = param.shape if transposed else param.shape[::-1]
    x = _as_rows(ctx, op, ctx.view(op.x))
    y = views.reshape(ctx.output(op.y), (x.shape[0], -(-n // _gated(op))))
    epilogue = _epilogue(ctx, op, y)
    columns = y.shape[1]
    nt = column_tile(ctx.chip, columns)
    rows = upper_bound(x.shape[0], ctx.ranges)
    tiling = matmul_tiling(ctx.chip, rows, columns, k, x.itemsize, nt, epilogue.accumulators)
    packing = Packing(n, k, nt, tiling.kt, transpose=not transposed, gate=epilogue.accumulators == 2)
    weights = View.contiguous(
        ctx.packed(op.w, packing), (packing.tiles, packing.k_tiles, packing.block), x.dtype
    )
    m = x.shape[0]
    flops = dim(Sym.of(m) * (2 * n * k))
    nbytes = dim(Sym.of(m) * (k * x.itemsize + columns * y.itemsize) + weights.bytes)
    with ctx.kernel(op, "matmul_packed", flops, nbytes) as b:
        pair = ctx.chip.pair if x.dtype == "bf16" else 1
        lo, hi = share(b, ctx.chip, packing.tiles // epilogue.accumulators)
        whole = b.alloc((tiling.mt, k), x.dtype) if tiling.resident else None
        with b.loop(0, b.sym(m), tiling.mt) as row:
            height = minimum(tiling.mt, b.sym(m) - row)
            if whole:
                b.load(whole, x, (row, 0), (height, k))
            with b.loop(lo, hi) as tile:
                column = tile * nt
                width = nt if columns % nt == 0 else minimum(nt, columns - column)
                accs = _accumulators(b, tiling, epilogue)
                for half, acc in enumerate(accs):
                    with b.loop(0, packing.k_tiles) as kt:
                        depth = _tile_extent(kt, tiling.kt, k)
                        stride = ceildiv(depth, pair) * (pair * ctx.chip.strip * x.itemsize)
                        w = b.alloc((packing.block,), x.dtype)
                        block = b.address(weights, tile * len(accs) + half, kt)
                        b.dma_load(w, block, (), stride * (nt // ctx.chip.strip), (), ())
                        b.mx_load(w, "packed", depth, width, stride)
                        rows_of_x = _rows_of_x(b, tiling, whole, x, (row, kt * tiling.kt), (height, depth))
                        b.mx_mul(acc, rows_of_x, height, accumulate=kt)
                epilogue.emit(b, accs, y, Block((row, column), height, width, tiling.mt, nt))


# ---- products of two views


def emit_batched(ctx: KernelContext, op: ir.OpView) -> None:
    """Batch × blocks of rows are dealt to the cores; the second operand is made stationary from rows."""
    x = _dense_last(ctx, op, ctx.view(op.x))
    w = _dense_either(ctx, op, _as_kn(ctx.view(op.w), op))
    y = ctx.output(op.y)
    epilogue = _epilogue(ctx, op, y)
    halves = _column_halves(w, y.shape[-1], epilogue.accumulators)
    m, k, n = x.shape[-2], x.shape[-1], y.shape[-1]
    nt, bound = ctx.chip.mx_n, [upper_bound(extent, ctx.ranges) for extent in (m, n, k)]
    static_k = k if isinstance(k, int) else None
    tiling = matmul_tiling(ctx.chip, bound[0], bound[1], static_k, x.itemsize, nt, epilogue.accumulators)
    batch = num_elements(x.shape[:-2])
    flops = dim(Sym.of(batch) * m * k * n * (2 * epilogue.accumulators))
    with ctx.kernel(op, "matmul_batched", flops, dim(Sym.of(x.bytes) + w.bytes + y.bytes)) as b:
        blocks = ceildiv(b.sym(m), tiling.mt)
        lo, hi = share(b, ctx.chip, b.sym(batch) * blocks)
        whole = b.alloc((tiling.mt, k), x.dtype) if tiling.resident else None
        with b.loop(lo, hi) as item:
            at = _unravel(b, item // blocks, x.shape[:-2])
            row = item % blocks * tiling.mt
            height = minimum(tiling.mt, b.sym(m) - row)
            if whole:
                b.load(whole, x, (*at, row, 0), (height, k))
            with b.loop(0, b.sym(n), nt) as column:
                width = minimum(nt, b.sym(n) - column)
                accs = _accumulators(b, tiling, epilogue)
                for half, acc in zip(halves, accs, strict=True):
                    with b.loop(0, ceildiv(b.sym(k), tiling.kt)) as kt:
                        depth = minimum(tiling.kt, b.sym(k) - kt * tiling.kt)
                        start = at[len(at) - (w.rank - 2) :]
                        _load_stationary(b, half, (*start, kt * tiling.kt, column), depth, width, tiling)
                        rows_of_x = _rows_of_x(
                            b, tiling, whole, x, (*at, row, kt * tiling.kt), (height, depth)
                        )
                        b.mx_mul(acc, rows_of_x, height, accumulate=kt)
                epilogue.emit(b, accs, y, Block((*at, row, column), height, width, tiling.mt, nt))


def _load_stationary(
    b: TileBuilder, w: View, start, depth: Index, width: Index, tiling: MatmulTiling
) -> None:
    """Makes w[start…] of depth × width stationary, by rows of K or of N, whichever lie dense."""
    if w.strides[-1] == 1:
        tile = b.alloc((tiling.kt, tiling.nt), w.dtype)
        b.load(tile, w, start, (depth, width))
        b.mx_load(tile, "kn", depth, width, tile.strides[1])
    else:
        tile = b.alloc((tiling.nt, tiling.kt), w.dtype)
        b.load(tile, _swap_last(w), (*start[:-2], start[-1], start[-2]), (width, depth))
        b.mx_load(tile, "nk", depth, width, tile.strides[1])


def _column_halves(w: View, columns: Dim, accumulators: int) -> list[View]:
    """The views of w that one column tile needs: w itself, or its gate and its up columns."""
    return [views.slice_dim(w, w.rank - 1, half * columns, columns) for half in range(accumulators)]


def _unravel(b: TileBuilder, index: Index, shape: Sequence[Dim]) -> tuple[Index, ...]:
    """The index along each batch dimension of the flat index."""
    at: list[Index] = []
    for extent in reversed(shape):
        at.insert(0, index % b.sym(extent) if len(at) < len(shape) - 1 else index)
        index = index // b.sym(extent)
    return tuple(at)


# ---- shared by both


def _rows_of_x(
    b: TileBuilder, tiling: MatmulTiling, whole: TileRef | None, x: View, start, extents
) -> TileRef:
    """The block of x that meets one stationary tile: a window of the resident rows, or loaded now."""
    if whole:
        return whole.at(0, start[-1])
    tile = b.alloc((tiling.mt, tiling.kt), x.dtype)
    b.load(tile, x, start, extents)
    return tile


def _accumulators(b: TileBuilder, tiling: MatmulTiling, epilogue: Epilogue) -> list[TileRef]:
    return [b.alloc((tiling.mt, tiling.nt), "f32", "acc") for _ in range(epilogue.accumulators)]


def _tile_extent(index: Index, tile: int, extent: int) -> Index:
    """The extent of tile `index`; the last may be short."""
    return tile if extent % tile == 0 else minimum(tile, extent - index * tile)


def _epilogue(ctx: KernelContext, op: ir.OpView, y: View) -> Epilogue:
    extra = [_like(ctx, op, ctx.view(value), y) for value in op.extra]
    columns = y.shape[-1]
    return Epilogue(tuple(op.steps), tuple(extra), columns if isinstance(columns, int) else 0)


def _like(ctx: KernelContext, op: ir.OpView, view: View, y: View) -> View:
    """A residual in the extents of y; a bias as it is."""
    if view.rank <= 1 or view.rank == y.rank:
        return view
    return views.reshape(view, y.shape) or views.reshape(movement.materialise(ctx, op, view), y.shape)


def _gated(op: ir.OpView) -> int:
    return 2 if Epilogue(tuple(op.steps)).accumulators == 2 else 1


def _as_rows(ctx: KernelContext, op: ir.OpView, x: View) -> View:
    """x as a matrix [rows, K] whose rows lie dense."""
    shape = (num_elements(x.shape[:-1]), x.shape[-1])
    flat = views.reshape(x, shape)
    if flat is None or (flat.strides[-1] != 1 and shape[-1] != 1):
        flat = views.reshape(movement.materialise(ctx, op, x), shape)
    return flat


def _dense_last(ctx: KernelContext, op: ir.OpView, x: View) -> View:
    return x if x.strides[-1] == 1 or x.shape[-1] == 1 else movement.materialise(ctx, op, x)


def _dense_either(ctx: KernelContext, op: ir.OpView, w: View) -> View:
    return w if 1 in w.strides[-2:] else movement.materialise(ctx, op, w)


def _as_kn(w: View, op: ir.OpView) -> View:
    return _swap_last(w) if op.transpose_w.value else w


def _swap_last(view: View) -> View:
    return views.transpose(view, (*range(view.rank - 2), view.rank - 1, view.rank - 2))
