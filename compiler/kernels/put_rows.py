"""`npu.put_rows`: rows of a tensor replaced, by indirect DMA; the others stay where they are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.movement import copy_program, index_list, materialise
from opennpu.compiler.kernels.scalars import Index, compare
from opennpu.compiler.kernels.tiling import BUFFERS, core_rows, row_block, tiles, upper_bound
from opennpu.compiler.kernels.values import View
from opennpu.compiler.kernels.vector import run_program
from opennpu.dialects.symbols import Dim, Sym, num_elements
from torch_mlir import ir


def emit_put_rows(ctx: KernelContext, op: ir.OpView) -> None:
    """x is copied first, unless the result lies in its memory: one program does both, in place and not.
    Then every core takes blocks of the new rows."""
    x, y, leading = ctx.view(op.x), ctx.output(op.y, strided=True), op.leading.value
    run_program(ctx, op, copy_program(y, x), only_if=lambda b: compare(b.address(x), "ne", b.address(y)))
    rows, values = index_list(ctx, op, ctx.view(op.rows)), ctx.view(op.values)
    y, values = _in_runs(ctx, op, y, values, leading)
    chip, count, width = ctx.chip, rows.shape[0], y.shape[-1]
    most = upper_bound(width, ctx.ranges)
    longest = chip.spm_bytes // BUFFERS // y.itemsize
    part = longest if most is None else max(1, min(most, longest))
    block = row_block(chip, part * y.itemsize)
    row_strides = [views.times(stride, y.itemsize) for stride in (*y.strides[:leading], 0)]
    with (
        ctx.kernel(op, "put_rows", bytes=2 * Sym.of(values.bytes) + rows.bytes) as b,
        core_rows(b, chip, b.sym(count), block) as (first, n),
        _each(b, y.shape[leading:-1]) as at,
        tiles(b, b.sym(width), part, part + 1 if most is None else most) as (column, length),
    ):
        tile = b.alloc((block, part), y.dtype)
        b.load(tile, values, (*at, first, column), (n, length))
        b.dma_scatter(
            b.address(y, *[0] * leading, *at, column),
            tile,
            index=b.address(rows, first),
            index_dtype=rows.dtype,
            count=n,
            limit=b.sym(num_elements(y.shape[:leading])),
            group=b.sym(y.shape[1]) if leading > 1 else 1,
            group_stride=b.sym(row_strides[0]),
            index_stride=b.sym(row_strides[1]),
            row_bytes=length * y.itemsize,
            src_index_stride=tile.strides[1],
        )


def _in_runs(ctx: KernelContext, op: ir.OpView, y: View, values: View, leading: int) -> tuple[View, View]:
    """y[D…,O…,W] and values[O…,M,W], the elements along W side by side in y; O is empty where it can be."""
    lead, rest = y.shape[:leading], y.shape[leading:]
    merged = views.reshape(y, (*lead, num_elements(rest)))
    if merged is not None:
        y = merged
        flat = (values.shape[0], num_elements(rest))
        values = views.reshape(values, flat) or views.reshape(materialise(ctx, op, values), flat)
    if y.strides[-1] != 1 and y.shape[-1] != 1:
        y, values = views.unsqueeze(y, y.rank), views.unsqueeze(values, values.rank)
    outer = range(1, values.rank - 1)
    return y, views.transpose(values, [*outer, 0, values.rank - 1])


@contextmanager
def _each(b: TileBuilder, extents: Sequence[Dim]) -> Iterator[tuple[Index, ...]]:
    """Loops over all places of these dimensions."""
    if not extents:
        yield ()
        return
    with b.loop(0, b.sym(extents[0])) as i, _each(b, extents[1:]) as rest:
        yield (i, *rest)
