"""`npu.cumsum`: running sums of rows, tile by tile with a carry.

Within a tile by doubling (Hillis and Steele 1986): after step i every element is the sum of the
2^i elements up to it. Tiles lie at fixed places of the row, so its sums do not depend on other rows.
"""

from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.movement import as_matrix
from opennpu.compiler.kernels.scalars import Index, minimum
from opennpu.compiler.kernels.tiling import core_rows, row_block
from opennpu.compiler.kernels.values import ITEMSIZE
from opennpu.dialects.symbols import Sym
from torch_mlir import ir

WIDTH = 512  # elements of a tile; each doubling is one more pass over it


def emit_cumsum(ctx: KernelContext, op: ir.OpView) -> None:
    """x[…,N] → y[…,N]; every core takes blocks of rows."""
    x, y = as_matrix(ctx, op, ctx.view(op.operands[0])), as_matrix(ctx, op, ctx.output(op.results[0]))
    wide = "f32" if x.dtype in ("f32", "bf16") else "i64"
    block = row_block(ctx.chip, WIDTH * (2 * ITEMSIZE[wide] + 2 * x.itemsize))
    rows, width = (extent for extent in x.shape)
    with (
        ctx.kernel(op, "cumsum", flops=Sym.of(rows) * width, bytes=Sym.of(x.bytes) + y.bytes) as b,
        core_rows(b, ctx.chip, b.sym(rows), block) as (first, count),
    ):
        carry = b.alloc((block, 1), wide)
        b.fill(carry, 0.0 if wide == "f32" else 0, (count, 1))
        with b.loop(0, b.sym(width), WIDTH) as at:
            n = minimum(WIDTH, b.sym(width) - at)
            given, sums = b.alloc((block, WIDTH), x.dtype), b.alloc((block, WIDTH), wide)
            b.load(given, x, (first, at), (count, n))
            b.copy(sums, given, (count, n))
            sums = _scan(b, sums, b.alloc((block, WIDTH), wide), count, n)
            b.binary("add", sums, sums, carry.broadcast(-1), (count, n))
            b.copy(carry, sums.at(0, n - 1), (count, 1))
            result = b.alloc((block, WIDTH), y.dtype)
            b.copy(result, sums, (count, n))
            b.store(y, (first, at), result, (count, n))


def _scan(b: TileBuilder, x: TileRef, spare: TileRef, rows: Index, n: Index) -> TileRef:
    """The running sums of the tile x, in x or in `spare`."""
    step = 1
    while step < WIDTH:
        b.copy(spare, x, (rows, minimum(step, n)))
        b.binary("add", spare.at(0, step), x.at(0, step), x, (rows, n - step))
        x, spare, step = spare, x, 2 * step
    return x
