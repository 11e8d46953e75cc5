"""Code generation for groups of element-wise and row-wise ops.

`npu.fused`, and every such op alone, becomes a vector program (`vector_program.py`),
gets tiles and buffers (`vector_plan.py`), and is then one loop nest: load what the
iteration needs, compute node by node in scratchpad, store the results.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.long_rows import COMBINE, stages
from opennpu.compiler.kernels.scalars import Index, ceildiv, compare, minimum
from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.compiler.kernels.vector_import import IMPORTERS, Import, reduce_last, stored_view
from opennpu.compiler.kernels.vector_plan import DoesNotFit, Plan, Slot, make_plan, source
from opennpu.compiler.kernels.vector_program import Node, VectorProgram, neutral
from opennpu.compiler.kernels.views import transpose, unsqueeze
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, Sym, num_elements
from torch_mlir import ir


def emit_vector(ctx: KernelContext, op: ir.OpView) -> None:
    """The emitter of `npu.fused` and of every op that a vector program can hold."""
    program = VectorProgram()
    nodes = Import(program, ctx.view).run(op)
    for node, result in zip(nodes, op.results, strict=True):
        program.output(node, stored_view(node, ctx.output(result, strided=True)))
    run_program(ctx, op, program)


def emit_reduce(ctx: KernelContext, op: ir.OpView) -> None:
    """A reduction along any dimension: the operand and the result are looked at with it last."""
    x, dim = ctx.view(op.operands[0]), op.dim.value
    perm = [d for d in range(x.rank) if d != dim] + [dim]
    y = ctx.output(op.results[0], strided=True)
    last = transpose(y, perm) if op.keepdim.value else unsqueeze(y, y.rank)
    program = VectorProgram()
    node = reduce_last(program, op.op.value, program.input(transpose(x, perm)), y.dtype)
    program.output(node, last)
    run_program(ctx, op, program)


EMITTERS = {
    **dict.fromkeys(["npu.fused", *(name for name in IMPORTERS if name != "npu.broadcast")], emit_vector),
    "npu.reduce": emit_reduce,
}


def run_program(
    ctx: KernelContext,
    op: ir.Operation,
    *programs: VectorProgram,
    cut: bool = False,
    only_if: Callable[[TileBuilder], ir.Value] | None = None,
) -> None:
    """One kernel that runs programs which do not depend on each other.

    With `cut` rows are reduced in pieces; so are those that do not fit, in several kernels. `only_if`
    builds a condition (i1) without which the kernel does nothing.
    """
    flops = sum((_flops(p) for p in programs), start=Sym.of(0))
    traffic = sum((_traffic(p) for p in programs), start=Sym.of(0))
    cores, spm_bytes = ctx.chip.cores, ctx.chip.spm_bytes // len(programs)
    try:
        plans = [make_plan(p, ctx.ranges, cores, spm_bytes, cut) for p in programs]
    except DoesNotFit as problem:
        if not cut and len(programs) == 1 and programs[0].is_row_wise:
            _run_in_pieces(ctx, op, programs[0])
            return
        what, remedy = problem.args
        title = f"'{op.operation.name}': {what}"
        raise CompileError(Problem(title, describe(op.location), remedy)) from None
    rows = plans[0].axes[-1].extent if cut else None
    with (
        ctx.kernel(op, "vector", flops=flops, bytes=traffic, cut=rows) as b,
        b.if_(only_if(b)) if only_if else nullcontext(),
    ):
        for plan in plans:
            Emission(b, plan, cores).run()


def _run_in_pieces(ctx: KernelContext, op: ir.Operation, program: VectorProgram) -> None:
    """A kernel for each stage of a program whose rows are too long for scratchpad."""
    for stage in stages(program, ctx.scratch):
        run_program(ctx, op, stage, cut=stage.is_row_wise)


def _flops(program: VectorProgram) -> Sym:
    arithmetic = [n for n in program.nodes if n.kind in ("unary", "binary", "select", "reduce")]
    return len(arithmetic) * Sym.of(num_elements(program.domain))


def _traffic(program: VectorProgram) -> Sym:
    views = [n.value for n in program.nodes if n.kind == "input"] + [view for _, view in program.outputs]
    return sum((Sym.of(_touched(v)) * ITEMSIZE[v.dtype] for v in views), start=Sym.of(0))


def _touched(view: View) -> Dim:
    return num_elements(n for n, s in zip(view.shape, view.strides, strict=True) if s != 0)


class Emission:
    """Makes the loop nest of one plan. `start` and `count` describe the current tile of each axis."""

    def __init__(self, b: TileBuilder, plan: Plan, cores: int):
        self.b, self.plan, self.cores = b, plan, cores
        self.loops = [i for i, axis in enumerate(plan.axes) if axis.looped]
        self.start: dict[int, Index] = {}
        self.count: dict[int, Index] = {}
        self.buffers: dict[Slot, TileRef] = {}

    def run(self) -> None:
        for i, axis in enumerate(self.plan.axes):
            if not axis.looped:
                self.start[i], self.count[i] = 0, self.b.sym(axis.extent)
        self._level(0)

    def _level(self, level: int) -> None:
        for node in self.plan.order:
            if self.plan.levels[node] == level:
                self._compute(node)
                if node not in self.plan.partials:
                    self._store_outputs(node)
        if level < len(self.loops):
            whole_row = level == len(self.loops) - 1
            if whole_row:
                for node in self.plan.partials:
                    self._start(node)
            with self._loop(self.loops[level]):
                self._level(level + 1)
            if whole_row:
                for node in self.plan.partials:
                    self._store_outputs(node)

    @contextmanager
    def _loop(self, i: int) -> Iterator[None]:
        """The loop over the tiles of axis i; of this core's share where the axis is split."""
        axis, b = self.plan.axes[i], self.b
        extent = b.sym(axis.extent)
        lo, hi, length = 0, extent, extent
        if axis.split:
            length = ceildiv(ceildiv(extent, self.cores), axis.grain) * axis.grain
            lo = b.core() * length
            hi = minimum(lo + length, extent)
        whole = _divides(axis.tile, length) and _divides(length, extent)
        with b.loop(lo, hi, axis.tile) as start:
            self.start[i] = start
            self.count[i] = axis.tile if whole or axis.tile == 1 else minimum(axis.tile, hi - start)
            yield
        del self.start[i], self.count[i]

    # ---- nodes

    def _compute(self, node: Node) -> None:
        b, walk = self.b, self._walk(node)
        dst, inputs = self._tile(node, walk), [self._tile(a, walk) for a in node.inputs]
        extents = [self.count[i] for i in walk]
        match node.kind:
            case "input":
                self._dma(node, node.value, b.dma_load)
            case "fill":
                b.fill(dst, node.value, extents)
            case "extent":
                b.iota(dst, extents, b.sym(node.value), ())
            case "iota":
                self._iota(node, dst, walk)
            case "unary":
                b.unary(node.op, dst, *inputs, extents)
            case "binary":
                b.binary(node.op, dst, *inputs, extents)
            case "select":
                b.select(dst, *inputs, extents)
            case "reduce" if self.plan.cut:
                self._accumulate(node, dst, inputs, walk)
            case "reduce":
                b.reduce(node.op, dst, *inputs, extents)

    def _start(self, node: Node) -> None:
        """Fills what gathers a reduction with what changes nothing."""
        walk = self._gathered(node)
        self.b.fill(self._tile(node, walk), neutral(node.op, node.dtype), [self.count[i] for i in walk])

    def _accumulate(self, node: Node, dst: TileRef, inputs: Sequence[TileRef], walk: Sequence[int]) -> None:
        """Adds the reduction of a piece of the row to that of the pieces before."""
        b, slot, gathered = self.b, self.plan.partials[node], self._gathered(node)
        part, total = b.alloc((slot.elements,), slot.dtype).buffer, self._tile(node, gathered)
        b.reduce(node.op, replace(dst, buffer=part), *inputs, [self.count[i] for i in walk])
        extents = [self.count[i] for i in gathered]
        b.binary(COMBINE[node.op], total, total, replace(total, buffer=part), extents)

    def _gathered(self, node: Node) -> list[int]:
        return [i for i in self.plan.wide if self.plan.patterns[node][i]]

    def _walk(self, node: Node) -> list[int]:
        """The axes that the node's instruction steps along, at most three; a reduction ends in the row."""
        pattern, row = self.plan.patterns[node], len(self.plan.axes) - 1
        return [i for i in self.plan.wide if pattern[i] or (i == row and node.kind == "reduce")]

    def _tile(self, node: Node, walk: Sequence[int]) -> TileRef:
        node = source(node)
        layout = self.plan.layout(node)
        return self._buffer(node).permuted(*(layout[i] for i in walk))

    def _buffer(self, node: Node) -> TileRef:
        slot = self.plan.slots[node]
        if slot not in self.buffers:
            self.buffers[slot] = self.b.alloc((slot.elements,), slot.dtype)
        return self.buffers[slot]

    def _iota(self, node: Node, dst: TileRef, walk: Sequence[int]) -> None:
        """Its dimension is an axis of its own, or of extent 1."""
        first, step = node.value
        pattern = self.plan.patterns[node]
        axis = next((i for i, group in enumerate(self.plan.groups) if node.dim in group and pattern[i]), None)
        start = self.start[axis] if axis is not None else 0
        self.b.iota(dst, [self.count[i] for i in walk], first + start * step, [step] * len(walk))

    # ---- memory

    def _store_outputs(self, node: Node) -> None:
        for stored, view in self.plan.program.outputs:
            if source(stored) is node:
                self._store(node, view)

    def _store(self, node: Node, view: View) -> None:
        """Stores the tile; what repeats along a loop is stored by its first iteration only."""
        with ExitStack() as stack:
            for i in self.plan.repeated_loops(node):
                if i in self.start:
                    stack.enter_context(self.b.if_(compare(self.start[i], "eq", 0)))
                elif self.plan.axes[i].split:
                    stack.enter_context(self.b.if_(compare(self.b.core(), "eq", 0)))
            self._dma(node, view, self.b.dma_store)

    def _dma(self, node: Node, view: View, transfer) -> None:
        """Moves the node's tile between scratchpad and its place in HBM."""
        plan, b, size = self.plan, self.b, ITEMSIZE[node.dtype]
        hbm, spm = plan.axis_strides(view), plan.layout(node)
        address = b.address(view)
        for i in self.loops:
            if plan.patterns[node][i]:
                address = address + self.start[i] * b.sym(hbm[i]) * size
        runs = self._runs(node, hbm, spm)
        contiguous = bool(runs) and runs[-1][1:] == (1, size)
        nbytes = runs.pop()[0] * size if contiguous else size
        counts = [n for n, _, _ in runs]
        outer, inner = [b.sym(s) * size for _, s, _ in runs], [s for _, _, s in runs]
        buffer = self._buffer(node)
        if transfer == b.dma_load:
            transfer(buffer, address, counts, nbytes, outer, inner)
        else:
            transfer(address, buffer, counts, nbytes, inner, outer)

    def _runs(self, node: Node, hbm: Sequence[Dim], spm: Sequence[int]) -> list[tuple[Index, Dim, int]]:
        """(count, HBM stride in elements, SPM stride in bytes), fastest last, neighbours merged."""
        axes = [i for i in self.plan.wide if self.plan.patterns[node][i]]
        axes.sort(key=lambda i: hbm[i] == 1)
        runs: list[tuple[Index, Dim, int]] = []
        for i in axes:
            axis = self.plan.axes[i]
            if runs and not axis.looped and axis.extent == axis.tile:
                count, outer_hbm, outer_spm = runs[-1]
                if outer_hbm == hbm[i] * axis.tile and outer_spm == spm[i] * axis.tile:
                    runs[-1] = (count * axis.tile, hbm[i], spm[i])
                    continue
            runs.append((self.count[i], hbm[i], spm[i]))
        return runs


def _divides(a: Index, b: Index) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a > 0 and b % a == 0
