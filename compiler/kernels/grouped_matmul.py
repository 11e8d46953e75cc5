"""`npu.grouped_matmul`: every group of rows times its own matrix.

Where a group's rows begin and end stands in memory, two i32 that one scalar load brings as an
i64; the loop over them runs as often as there are rows, so a group without any costs just that
load. The column tiles of a group are dealt
to the cores one by one, those of the next group from the next core on: with a row each, as in
decoding, all cores still have work. Where the groups with rows come first (`matrices` says whose
they are), there are no more of them than rows.
"""

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.matmul import as_rows, cost, packed_product, strided_product, whole_columns
from opennpu.compiler.kernels.scalars import minimum
from opennpu.compiler.kernels.values import view_type
from torch_mlir import ir


def emit_grouped_matmul(ctx: KernelContext, op: ir.OpView) -> None:
    """x[R,K] · w[E,N,K]ᵀ → y[R,N] with the op's epilogue."""
    x, y, cores = ctx.view(op.x), ctx.output(op.y), ctx.chip.cores
    offsets = movement.materialise(ctx, op, ctx.view(op.offsets))
    if ctx.is_param(op.w):
        product = packed_product(ctx, op, as_rows(ctx, op, x), y, True, whole_columns)
    else:
        product = strided_product(ctx, op, x, y)
    matrices = None if op.matrices is None else movement.materialise(ctx, op, ctx.view(op.matrices))
    with ctx.kernel(op, "grouped_matmul", *cost(op, product)) as b:
        tiles, groups = product.columns(b), b.sym(view_type(op.w)[0][0])
        if matrices:
            groups = minimum(groups, b.sym(x.shape[0]))
        with b.loop(0, groups) as group:
            both = b.load_scalar(b.address(offsets, group), "i64")
            begin, end = both % (1 << 32), both // (1 << 32)
            own = (b.core() + group * (cores - 1)) % cores
            with b.loop(begin, end, product.tiling.mt) as row:
                matrix = b.load_scalar(b.address(matrices, group), matrices.dtype) if matrices else group
                rows = product.rows(b, (row,), end)
                with b.loop(own, tiles, cores) as tile:
                    product.emit(b, rows, (matrix,), tile)
