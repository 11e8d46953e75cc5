"""`npu.matmul`: whose work which part of a product is.

With packed weights the cores share rows and columns as a grid (`blocks.py`). With any other w they
share batches and blocks of rows, and where these are too few the columns too, so that every core has
work and no weight is read twice for a block of rows.
"""

from collections.abc import Callable, Sequence

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.blocks import emit_blocks
from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.epilogue import Epilogue
from opennpu.compiler.kernels.matmul_tiling import (
    BlockTiling,
    MatmulTiling,
    block_tilings,
    column_tile,
    depth_tile,
    matmul_tiling,
)
from opennpu.compiler.kernels.product import PackedProduct, Product, StridedProduct, swap_last
from opennpu.compiler.kernels.scalars import Index, ceildiv, maximum, minimum
from opennpu.compiler.kernels.tiling import share, upper_bound
from opennpu.compiler.kernels.values import View, view_type
from opennpu.compiler.kernels.weights import Packing
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from torch_mlir import ir


def emit_matmul(ctx: KernelContext, op: ir.OpView) -> None:
    """x[…,M,K] · w → y[…,M,N] with the op's epilogue."""
    packed = ctx.is_param(op.w) and len(ctx.param(op.w).shape) == 2 and all(ctx.param(op.w).shape)
    if packed:
        x, y = (as_rows(ctx, op, view) for view in (ctx.view(op.x), ctx.output(op.y)))
        product = packed_product(ctx, op, x, y, bool(op.transpose_w.value), _blocks)
    else:
        product = strided_product(ctx, op, ctx.view(op.x), ctx.output(op.y), bool(op.transpose_w.value))
    name = ("matmul_packed" if product.tiling.resident else "matmul_sums") if packed else "matmul_strided"
    with ctx.kernel(op, name, *cost(op, product)) as b:
        (emit_blocks if packed else _share_blocks)(b, product)


def cost(op: ir.OpView, product: Product) -> tuple[Dim, Dim]:
    """flops and HBM bytes."""
    columns = product.y.shape[-1] * product.epilogue.accumulators
    flops = dim(2 * Sym.of(num_elements(product.x.shape)) * columns)
    weights = Sym.of(num_elements(view_type(op.w)[0])) * product.x.itemsize
    return flops, dim(weights + product.x.bytes + product.y.bytes)


def _share_blocks(b: TileBuilder, product: StridedProduct) -> None:
    """Every core a part of batch × blocks of rows × parts of the columns."""
    batch, m = product.x.shape[:-2], b.sym(product.x.shape[-2])
    blocks, tiles = ceildiv(m, product.tiling.mt), product.columns(b)
    whole = b.sym(num_elements(batch)) * blocks
    cores = product.chip.cores
    too_few = minimum((cores - 1) // maximum(whole, 1), 1)
    parts = 1 + too_few * (minimum(cores, maximum(tiles, 1)) - 1)
    each = ceildiv(tiles, parts)
    lo, hi = share(b, product.chip, whole * parts)
    with b.loop(lo, hi) as item:
        block, first = item // parts, item % parts * each
        at = _unravel(b, block // blocks, batch)
        rows = product.rows(b, (*at, block % blocks * product.tiling.mt), m)
        matrix = at[len(at) + 2 - product.w.rank :]
        with b.loop(first, minimum(first + each, tiles)) as tile:
            product.emit(b, rows, matrix, tile)


def _unravel(b: TileBuilder, index: Index, shape: Sequence[Dim]) -> tuple[Index, ...]:
    """The index along each batch dimension of the flat index."""
    at: list[Index] = []
    for extent in reversed(shape[1:]):
        at.insert(0, index % b.sym(extent))
        index = index // b.sym(extent)
    return (index, *at) if shape else ()


# ---- operands; w is a parameter or a value of `npu.matmul` or `npu.grouped_matmul`


Tiler = Callable[[KernelContext, View, View, Packing, Epilogue], MatmulTiling | None]


def packed_product(
    ctx: KernelContext, op: ir.OpView, x: View, y: View, transposed: bool, tile: Tiler
) -> PackedProduct:
    """x[M,K] · the op's parameter w, [N,K] or one such matrix for every group, in tiles by `tile`."""
    *groups, rows, depth = ctx.param(op.w).shape
    n, k = (rows, depth) if transposed else (depth, rows)
    epilogue = _epilogue(ctx, op, y)
    halves = epilogue.accumulators
    nt = halves * column_tile(ctx.chip, n // halves, ctx.chip.mx_n // halves)
    pair = ctx.chip.pair if x.dtype == "bf16" else 1
    packing = Packing(n, k, nt, ctx.chip.mx_k, pair, not transposed, halves == 2, num_elements(groups))
    tiling = _checked(ctx, op, tile(ctx, x, y, packing, epilogue), nt, x.dtype)
    shape = (*groups, packing.tiles, packing.column)
    strides = (*(packing.matrix for _ in groups), packing.column, 1)
    w = View(shape, strides, base=ctx.packed(op.w, packing), dtype=x.dtype)
    return PackedProduct(ctx.chip, x, y, tiling, epilogue, w, packing)


def whole_columns(ctx: KernelContext, x: View, y: View, packing: Packing, epilogue: Epilogue) -> MatmulTiling:
    """Every column tile by itself, for as many rows as fit."""
    return matmul_tiling(ctx.chip, upper_bound(x.shape[0], ctx.ranges), packing.k, x.itemsize, packing.nt)


def _blocks(ctx: KernelContext, x: View, y: View, packing: Packing, epilogue: Epilogue) -> BlockTiling | None:
    widths = [y.itemsize, *(view.itemsize for view in epilogue.extra if view.rank > 1)]
    rows, result_bytes = (
        upper_bound(x.shape[0], ctx.ranges),
        sum(widths) * packing.nt // epilogue.accumulators,
    )
    tilings = block_tilings(ctx.chip, rows, packing.k, x.itemsize, packing.tiles, packing.nt, result_bytes)
    bound = "any" if rows is None else f"up to {rows}"
    dtypes = (x.dtype, *(view.dtype for view in epilogue.extra if view.rank > 1), y.dtype)
    product = " ".join((f"{bound} × {packing.k} × {packing.n}", *epilogue.steps, "→".join(dtypes)))
    return ctx.choices.choose(product, tilings) if tilings else None


def strided_product(
    ctx: KernelContext, op: ir.OpView, x: View, y: View, transposed: bool = True
) -> StridedProduct:
    """x[…,M,K] · w[…,K,N], or w[…,N,K]."""
    w = ctx.view(op.w)
    x = x if x.strides[-1] == 1 else movement.materialise(ctx, op, x)
    w = w if 1 in w.strides[-2:] else movement.materialise(ctx, op, w)
    w = swap_last(w) if transposed else w
    epilogue = _epilogue(ctx, op, y)
    chip, n, k = ctx.chip, y.shape[-1], upper_bound(x.shape[-1], ctx.ranges)
    halves = epilogue.accumulators
    most = chip.mx_n // halves
    nt = halves * (column_tile(chip, n, most) if isinstance(n, int) and n > 0 else most)
    depth = depth_tile(chip, k, x.itemsize, nt)
    tiling = matmul_tiling(chip, upper_bound(x.shape[-2], ctx.ranges), k, x.itemsize, nt, depth)
    return StridedProduct(chip, x, y, _checked(ctx, op, tiling, nt, x.dtype), epilogue, w)


def _checked(
    ctx: KernelContext, op: ir.OpView, tiling: MatmulTiling | None, nt: int, dtype: str
) -> MatmulTiling:
    """The tiling, which must leave a row. Raises CompileError."""
    if tiling is None or tiling.mt < 1:
        chip = ctx.chip
        what = (
            f"'{op.operation.name}': not one row fits {chip.name} beside tiles of {chip.mx_k} × {nt} "
            f"{dtype}: the scratchpad has {chip.spm_bytes} bytes, the accumulator {chip.acc_bytes}"
        )
        remedy = "choose a chip with a larger memory.spm_kib or memory.acc_kib, or a smaller matrix unit"
        raise CompileError(Problem(what, describe(op.location), remedy))
    return tiling


def _epilogue(ctx: KernelContext, op: ir.OpView, y: View) -> Epilogue:
    extra = tuple(_like(ctx, op, ctx.view(value), y) for value in op.extra)
    return Epilogue(tuple(op.steps), extra, y.shape[-1])


def _like(ctx: KernelContext, op: ir.OpView, view: View, y: View) -> View:
    """A residual in the extents of y; a bias as it is."""
    if view.rank <= 1 or view.rank == y.rank:
        return view
    return views.reshape(view, y.shape) or views.reshape(movement.materialise(ctx, op, view), y.shape)


def as_rows(ctx: KernelContext, op: ir.OpView, x: View) -> View:
    """x as a matrix [rows, K] whose rows lie dense."""
    shape = (num_elements(x.shape[:-1]), x.shape[-1])
    flat = views.reshape(x, shape)
    if flat is None or (flat.strides[-1] != 1 and shape[-1] != 1):
        flat = views.reshape(movement.materialise(ctx, op, x), shape)
    return flat
