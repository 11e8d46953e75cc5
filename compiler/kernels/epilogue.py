"""What happens to a product tile between accumulator and memory: bias, activation, residual, gate."""

from collections.abc import Callable
from dataclasses import dataclass

from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.scalars import Index
from opennpu.compiler.kernels.values import View
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim


@dataclass(frozen=True)
class Block:
    """One block of the result: its first element (batch…, row, column), its extents, its buffer sizes."""

    start: tuple[Index, ...]
    rows: Index
    columns: Index
    mt: int
    nt: int


@dataclass(frozen=True)
class Epilogue:
    """The steps of `npu.matmul`'s epilogue and the views of its extra operands.

    `gate_offset` is the column where the second half of a gated product begins.
    """

    steps: tuple[str, ...] = ()
    extra: tuple[View, ...] = ()
    gate_offset: Dim = 0

    @property
    def accumulators(self) -> int:
        return 2 if any(step in npu.GATES for step in self.steps) else 1

    def emit(self, b: TileBuilder, accs: list[TileRef], y: View, block: Block) -> None:
        """Runs the steps on the accumulators in f32, rounds once, stores the block of y."""
        extra = iter(self.extra)
        pending: list[Callable[[TileRef], None]] = []
        for step in self.steps:
            pending += self._step(b, step, accs, extra, block)
            if step in npu.GATES:
                accs = accs[:1]  # the second is used up: what follows is as wide as y
        out = b.alloc((block.mt, block.nt), y.dtype)
        extents = (block.rows, block.columns)
        last = pending.pop() if pending else lambda dst: b.copy(dst, accs[0], extents)
        for run in pending:
            run(accs[0])
        last(out)
        b.store(y, block.start, out, extents)

    def _step(self, b: TileBuilder, step: str, accs, extra, block: Block) -> list[Callable[[TileRef], None]]:
        """The step as functions of where the result goes, to be run in order."""
        extents = (block.rows, block.columns)
        acc = accs[0]
        if step == "bias":
            view = next(extra)
            rows = [self._bias(b, view, block, half) for half in range(len(accs))]
            if len(accs) == 2:
                b.binary("add", accs[1], accs[1], rows[1], extents)
            return [lambda dst: b.binary("add", dst, acc, rows[0], extents)]
        if step == "residual":
            view = next(extra)
            tile = b.alloc((block.mt, block.nt), view.dtype)
            b.load(tile, view, block.start, extents)
            return [lambda dst: b.binary("add", dst, acc, tile, extents)]
        if step in npu.GATES:
            up = accs[1]
            return [
                lambda dst: b.unary(npu.GATES[step], acc, acc, extents),
                lambda dst: b.binary("mul", dst, acc, up, extents),
            ]
        return [lambda dst: b.unary(step, dst, acc, extents)]

    def _bias(self, b: TileBuilder, view: View, block: Block, half: int) -> TileRef:
        tile = b.alloc((block.nt,), view.dtype)
        b.load(tile, view, (block.start[-1] + b.sym(self.gate_offset) * half,), (block.columns,))
        return tile
