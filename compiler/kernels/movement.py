"""Ops that move elements: views where strides say it all, copies where they do not."""

from collections.abc import Iterator
from contextlib import contextmanager

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.scalars import Index, minimum
from opennpu.compiler.kernels.tiling import BUFFERS, core_rows, upper_bound
from opennpu.compiler.kernels.values import View, view_type
from opennpu.compiler.kernels.vector import run_program
from opennpu.compiler.kernels.vector_program import VectorProgram
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, Sym, num_elements
from torch_mlir import ir


def copy(ctx: KernelContext, op: ir.Operation, dst: View, src: View) -> None:
    """One kernel that copies one view to another of the same shape and dtype; strides may be anything."""
    run_program(ctx, op, copy_program(dst, src))


def materialise(ctx: KernelContext, op: ir.Operation, view: View) -> View:
    """The view itself where it is row-major, else a row-major copy that lives until `op` is done."""
    if view.is_contiguous:
        return view
    dst = ctx.scratch(view.shape, view.dtype)
    copy(ctx, op, dst, view)
    return dst


def copy_program(dst: View, src: View) -> VectorProgram:
    program = VectorProgram()
    program.output(program.input(src), dst)
    return program


# ---- ops that are only another look


def emit_reshape(ctx: KernelContext, op: ir.OpView) -> None:
    shape, _ = view_type(op.results[0])
    x = ctx.view(op.operands[0])
    reshaped = views.reshape(x, shape)
    if reshaped is not None:
        ctx.define(op.results[0], reshaped)
        return
    y = ctx.output(op.results[0])
    copy(ctx, op, views.reshape(y, x.shape), x)


def emit_transpose(ctx: KernelContext, op: ir.OpView) -> None:
    perm = [p.value for p in op.perm]
    ctx.define(op.results[0], views.transpose(ctx.view(op.operands[0]), perm))


def emit_slice(ctx: KernelContext, op: ir.OpView) -> None:
    size = view_type(op.results[0])[0][op.dim.value]
    x = ctx.view(op.operands[0])
    ctx.define(op.results[0], views.slice_dim(x, op.dim.value, op.offset.value, size, op.stride.value))


def emit_broadcast(ctx: KernelContext, op: ir.OpView) -> None:
    shape, _ = view_type(op.results[0])
    ctx.define(op.results[0], views.broadcast(ctx.view(op.operands[0]), shape))


# ---- copies


def emit_concat(ctx: KernelContext, op: ir.OpView) -> None:
    """Every source is copied into its slice of the result, in one kernel."""
    y, dim = ctx.output(op.results[0], strided=True), op.dim.value
    programs, offset = [], 0
    for x in map(ctx.view, op.operands):
        size = x.shape[dim]
        programs.append(copy_program(views.slice_dim(y, dim, offset, size), x))
        offset = views.plus(offset, size)
    run_program(ctx, op, *programs)


def emit_gather(ctx: KernelContext, op: ir.OpView) -> None:
    """Rows of a table by index: indirect DMA in, plain DMA out. An index outside the table traps."""
    table = _with_contiguous_rows(ctx, op, ctx.view(op.operands[0]))
    index = index_list(ctx, op, ctx.view(op.operands[1]))
    y, chip = ctx.output(op.results[0]), ctx.chip
    row, count = views.times(num_elements(table.shape[1:]), table.itemsize), num_elements(index.shape)
    part = min(_bound(ctx, row), chip.spm_bytes // BUFFERS)  # of a row longer than the scratchpad
    block = min(_bound(ctx, count), chip.spm_bytes // (BUFFERS * part))
    with (
        ctx.kernel(op, "gather", bytes=Sym.of(count) * row * 2) as b,
        core_rows(b, chip, b.sym(count), block) as (first, n),
        _pieces(b, b.sym(row), part) as (at, nbytes),
    ):
        rows = b.alloc((block, part), "i8")
        b.dma_gather(
            rows,
            b.address(table) + at,
            index=b.address(index) + first * index.itemsize,
            index_dtype=index.dtype,
            count=n,
            limit=b.sym(table.shape[0]),
            group_stride=b.sym(table.strides[0]) * table.itemsize,
            row_bytes=nbytes,
            dst_index_stride=part,
        )
        target = b.address(y) + first * b.sym(row) + at
        if nbytes == part == row:  # rows side by side in both memories: one run
            b.dma_store(target, rows, [], n * nbytes, [], [])
        else:
            b.dma_store(target, rows, [n], nbytes, [part], [b.sym(row)])


def emit_take(ctx: KernelContext, op: ir.OpView) -> None:
    """torch.gather along the last dimension: whole rows and their indices meet in scratchpad."""
    x, index = (as_matrix(ctx, op, ctx.view(operand)) for operand in op.operands)
    y, chip = as_matrix(ctx, op, ctx.output(op.results[0])), ctx.chip
    rows, width = index.shape
    n, budget = _bound(ctx, x.shape[1]), chip.spm_bytes // BUFFERS
    each = index.itemsize + y.itemsize
    part = min(_bound(ctx, width), (budget - n * x.itemsize) // each)
    if part < 1:
        raise CompileError(_row_does_not_fit(op, x, budget))
    block = min(_bound(ctx, rows), budget // (n * x.itemsize + part * each))
    with (
        ctx.kernel(op, "take", bytes=Sym.of(x.bytes) + index.bytes + y.bytes) as b,
        core_rows(b, chip, b.sym(rows), block) as (first, count),
    ):
        table = b.alloc((block, n), x.dtype)
        b.load(table, x, (first, 0), (count, b.sym(x.shape[1])))
        with _pieces(b, b.sym(width), part) as (at, m):
            picks, taken = b.alloc((block, part), index.dtype), b.alloc((block, part), y.dtype)
            b.load(picks, index, (first, at), (count, m))
            b.gather(taken, table, picks, (count, m), limit=b.sym(x.shape[1]))
            b.store(y, (first, at), taken, (count, m))


EMITTERS = {
    "npu.reshape": emit_reshape,
    "npu.transpose": emit_transpose,
    "npu.slice": emit_slice,
    "npu.broadcast": emit_broadcast,
    "npu.concat": emit_concat,
    "npu.gather": emit_gather,
    "npu.take": emit_take,
}


# ---- their operands


def _with_contiguous_rows(ctx: KernelContext, op: ir.OpView, table: View) -> View:
    row = views.Strided(table.shape[1:], table.strides[1:])
    return table if views.is_contiguous(row) else materialise(ctx, op, table)


def index_list(ctx: KernelContext, op: ir.OpView, index: View) -> View:
    """The indices side by side in memory, of a dtype that DMA reads."""
    if index.dtype in ISA["dma_gather"].by_name["index_dtype"].only:
        return materialise(ctx, op, index)
    dst, program = ctx.scratch(index.shape, "i64"), VectorProgram()
    program.output(program.cast(program.input(index), "i64"), dst)
    run_program(ctx, op, program)
    return dst


def as_matrix(ctx: KernelContext, op: ir.OpView, view: View) -> View:
    """The view as [all leading dimensions][last], a copy where strides do not allow that."""
    shape = (num_elements(view.shape[:-1]), view.shape[-1])
    matrix = views.reshape(view, shape)
    return matrix if matrix is not None else views.reshape(materialise(ctx, op, view), shape)


def _bound(ctx: KernelContext, extent: Dim) -> int:
    """The greatest value of an extent, at least 1; what the scratchpad could hold where it has no bound."""
    upper = upper_bound(extent, ctx.ranges)
    return max(1, ctx.chip.spm_bytes if upper is None else upper)


@contextmanager
def _pieces(b: TileBuilder, length: Index, part: int) -> Iterator[tuple[Index, Index]]:
    """A loop over (start, size ≤ part) of `length`; none where it is one piece."""
    if isinstance(length, int) and length <= part:
        yield 0, length
    else:
        with b.loop(0, length, part) as start:
            yield start, minimum(part, length - start)


def _row_does_not_fit(op: ir.OpView, x: View, budget: int) -> Problem:
    row = f"a row of {x.shape[1]} {x.dtype}"
    return Problem(
        f"'{op.operation.name}': {row} does not fit in {budget} bytes of scratchpad",
        describe(op.location),
        "shorten the row, lower the symbol's upper bound, or choose a chip with more scratchpad",
    )
