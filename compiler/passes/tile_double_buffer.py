"""npu-tile-double-buffer: buffers of a loop body get slots, so that load and compute overlap.

An alloc in a loop body means a fresh buffer each iteration. It moves to the start of the
kernel and gets two slots used in turn, if two queues work on it and the memory lasts; else
one. Every use then adds `slot · slot_bytes` to its offset, where `npu_tile.slot` counts the
iterations modulo the slots, on over the loops around it. Buffers that say how many slots they want come
first, then those that a DMA fills, small ones before large. What memory is left goes to those that
stream into the matrix unit, up to STREAM_SLOTS each: with two, a transfer would wait for the latency
of the one before it and for the work on its bytes.
"""

from opennpu.compiler.kernels.scalars import I64, ceildiv
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.tile_ir import (
    Buffer,
    allocs,
    body_of,
    buffer_of,
    enclosing,
    integer,
    integer_attr,
    kernels,
    walk,
)
from opennpu.dialects.npu_tile.dialect import SlotOp
from opennpu.dialects.npu_tile.effects import spec_of
from opennpu.dialects.npu_tile.types import constant
from opennpu.runtime.chip import Chip
from torch_mlir import ir
from torch_mlir.dialects import arith

SLOTS = 2
STREAM_SLOTS = 4
STREAM = {"load", "matrix"}
"""The queues that work on a buffer that streams into the matrix unit."""


@register_pass(
    "npu-tile-double-buffer", "hoist the buffers of loop bodies, with two slots where memory lasts"
)
def double_buffer(module: ir.Module, chip: str | Chip = "npu1-lite") -> None:
    chip = Chip.load(chip)
    for kernel in kernels(module):
        _Kernel(kernel, chip).run()


class _Kernel:
    def __init__(self, kernel: ir.Operation, chip: Chip):
        self.kernel = kernel
        self.free = {"spm": chip.spm_bytes, "acc": chip.acc_bytes}
        self.slots: dict[tuple[ir.Operation, int], SlotOp] = {}  # by loop and number of slots
        slots = [op for op in walk(body_of(kernel)) if op.name == "npu_tile.slot"]
        self.rings = 1 + max((integer(op, "loop", None) for op in slots), default=-1)
        self.turns: dict[ir.Operation, I64] = {op.parent: I64(op.operands[0]) for op in slots}  # by loop

    def run(self) -> None:
        buffers = [buffer_of(op) for op in allocs(self.kernel)]
        for buffer in buffers:
            self.free[buffer.space] -= buffer.bytes
        rotating = [buffer for buffer in sorted(buffers, key=_priority) if self._rotates(buffer)]
        slots = dict.fromkeys(rotating, 1)
        wishes = [
            *((buffer, integer(buffer.op, "wants", 1)) for buffer in rotating),
            *((buffer, SLOTS) for buffer in rotating),
            *((buffer, STREAM_SLOTS) for buffer in rotating if _queues(buffer) == STREAM),
        ]
        for buffer, most in wishes:
            more = max(most - slots[buffer], 0) * buffer.slot_bytes
            if more <= self.free[buffer.space]:
                self.free[buffer.space] -= more
                slots[buffer] = max(most, slots[buffer])
        for buffer in rotating:
            if slots[buffer] > 1:
                self._rotate(buffer, slots[buffer])
        first = body_of(self.kernel).operations[0]
        for buffer in buffers:
            buffer.op.move_before(first)

    def _rotates(self, buffer: Buffer) -> bool:
        """Whether every iteration of a loop has a fresh buffer, which several queues work on."""
        loop = enclosing(buffer.op, "scf.for")
        fresh = bool(loop and enclosing(loop, "npu_tile.kernel")) and buffer.loop is None
        return fresh and len(_queues(buffer)) > 1

    def _rotate(self, buffer: Buffer, slots: int) -> None:
        slot = self._slot(enclosing(buffer.op, "scf.for"), slots)
        buffer.op.attributes["slots"] = integer_attr(slots)
        buffer.op.attributes["loop"] = slot.attributes["loop"]
        with ir.InsertionPoint.after(slot), buffer.op.location:
            shift = arith.muli(slot.res, constant(buffer.slot_bytes))
        for use in list(buffer.op.results[0].uses):
            user = use.owner.operation
            with ir.InsertionPoint(user), user.location:
                offset = arith.addi(user.operands[use.operand_number + 1], shift)
            user.operands[use.operand_number + 1] = offset

    def _slot(self, loop: ir.Operation, slots: int) -> SlotOp:
        """The slot of the current iteration of a loop; one operation a loop and number of slots."""
        if (loop, slots) not in self.slots:
            number, turn = integer_attr(self.rings + len(self.slots)), self._turn(loop)
            with _after(turn.value), loop.location:
                self.slots[loop, slots] = SlotOp(turn.value, loop=number, slots=integer_attr(slots))
        return self.slots[loop, slots]

    def _turn(self, loop: ir.Operation) -> I64:
        """The number of the current iteration; it goes on where the loop stopped when it ran before."""
        if loop not in self.turns:
            outer = enclosing(loop, "scf.for")
            before = self._turn(outer) if outer and enclosing(outer, "npu_tile.kernel") else 0
            lo, hi, step = map(I64, loop.operands)
            with ir.InsertionPoint.at_block_begin(body_of(loop)), loop.location:
                iteration = (I64(body_of(loop).arguments[0]) - lo) // step
                self.turns[loop] = iteration + before * ceildiv(hi - lo, step)
        return self.turns[loop]


def _after(value: ir.Value) -> ir.InsertionPoint:
    owner = value.owner
    if isinstance(owner, ir.Block):
        return ir.InsertionPoint.at_block_begin(owner)
    return ir.InsertionPoint.after(owner)


def _queues(buffer: Buffer) -> set[str]:
    return {spec_of(use.owner).engine for use in buffer.op.results[0].uses}


def _priority(buffer: Buffer) -> tuple[bool, int]:
    return ("load" not in _queues(buffer), buffer.slot_bytes)
