"""npu-tile-double-buffer: buffers of a loop body get two slots, so that load and compute overlap.

An alloc in a loop body means a fresh buffer each iteration. It moves to the start of the
kernel and gets two slots used in turn, if two queues work on it and the memory lasts; else
one. Every use then adds `slot · slot_bytes` to its offset, where `npu_tile.slot` is the
iteration modulo the slots. Buffers that a DMA fills come first, small ones before large.
"""

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.tile_ir import (
    Buffer,
    allocs,
    body_of,
    buffer_of,
    enclosing,
    integer_attr,
    kernels,
)
from opennpu.dialects.npu_tile.dialect import SlotOp
from opennpu.dialects.npu_tile.effects import spec_of
from opennpu.dialects.npu_tile.types import constant
from opennpu.runtime.chip import Chip
from torch_mlir import ir
from torch_mlir.dialects import arith

SLOTS = 2


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
        self.slots: dict[ir.Operation, SlotOp] = {}  # by loop

    def run(self) -> None:
        buffers = [buffer_of(op) for op in allocs(self.kernel)]
        for buffer in buffers:
            self.free[buffer.space] -= buffer.bytes
        for buffer in sorted(buffers, key=_priority):
            loop = self._loop_of(buffer)
            if loop is not None and len(_queues(buffer)) > 1 and self.free[buffer.space] >= buffer.slot_bytes:
                self.free[buffer.space] -= (SLOTS - 1) * buffer.slot_bytes
                self._rotate(buffer, loop)
        first = body_of(self.kernel).operations[0]
        for buffer in buffers:
            buffer.op.move_before(first)

    def _loop_of(self, buffer: Buffer) -> ir.Operation | None:
        """The loop whose every iteration has a fresh buffer; None for one of the kernel."""
        loop = enclosing(buffer.op, "scf.for")
        return loop if loop and enclosing(loop, "npu_tile.kernel") else None

    def _rotate(self, buffer: Buffer, loop: ir.Operation) -> None:
        slot = self._slot(loop)
        buffer.op.attributes["slots"] = integer_attr(SLOTS)
        buffer.op.attributes["loop"] = slot.attributes["loop"]
        with ir.InsertionPoint.after(slot), buffer.op.location:
            shift = arith.muli(slot.res, constant(buffer.slot_bytes))
        for use in list(buffer.op.results[0].uses):
            user = use.owner.operation
            with ir.InsertionPoint(user), user.location:
                offset = arith.addi(user.operands[use.operand_number + 1], shift)
            user.operands[use.operand_number + 1] = offset

    def _slot(self, loop: ir.Operation) -> SlotOp:
        """The slot of the current iteration of a loop; one operation a loop."""
        if loop not in self.slots:
            number = integer_attr(len(self.slots))
            with ir.InsertionPoint.at_block_begin(body_of(loop)), loop.location:
                iv = body_of(loop).arguments[0]
                self.slots[loop] = SlotOp(iv, loop=number, slots=integer_attr(SLOTS))
        return self.slots[loop]


def _queues(buffer: Buffer) -> set[str]:
    return {spec_of(use.owner).engine for use in buffer.op.results[0].uses}


def _priority(buffer: Buffer) -> tuple[bool, int]:
    return ("load" not in _queues(buffer), buffer.slot_bytes)
