"""npu-tile-insert-sync: event flags between the queues, from an analysis of memory effects.

`compiler/ordering.py` says which edges a kernel needs; here they become flags. Forward edges of
one block between the same two queues share a flag where their waits come in the order of their
sets: flags count, and both queues are in order. A carried edge has one flag a slot.
"""

from dataclasses import dataclass

from opennpu.compiler.ordering import Edge, Item, find_edges
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.tile_ir import body_of, integer, kernel_name, kernels
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.locations import describe
from opennpu.dialects.npu_tile.dialect import SetFlagOp, WaitFlagOp
from opennpu.dialects.npu_tile.types import constant
from torch_mlir import ir
from torch_mlir.dialects import arith


@register_pass("npu-tile-insert-sync", "order the queues of every kernel with event flags")
def insert_sync(module: ir.Module) -> None:
    for kernel in kernels(module):
        flags = _number(find_edges(kernel))
        used = sum(max(f.edges[0].slots, 1) for f in flags)
        if used > ISA.flags:
            raise CompileError(
                Problem(
                    f"kernel {kernel_name(kernel)} needs {used} event flags, a core has {ISA.flags}",
                    describe(kernel.location),
                    "split the kernel: fuse fewer operations",
                )
            )
        for flag in flags:
            _emit(kernel, flag)


@dataclass
class _Flag:
    """A flag, or for carried edges over several slots as many flags from `number` on."""

    number: int
    edges: list[Edge]

    def takes(self, edge: Edge) -> bool:
        """Whether a forward edge, given in the order of the waits, may share this flag."""
        last = self.edges[-1]
        same = (last.block, last.source, last.target) == (edge.block, edge.source, edge.target)
        return same and not last.carried and not edge.carried and last.x.index <= edge.x.index


def _number(edges: list[Edge]) -> list[_Flag]:
    flags: list[_Flag] = []
    free = 0
    for edge in sorted(edges, key=lambda e: e.y.index):
        shared = next((flag for flag in flags if flag.takes(edge)), None)
        if shared:
            shared.edges.append(edge)
            continue
        flags.append(_Flag(free, [edge]))
        free += max(edge.slots, 1)
    return flags


def _emit(kernel: ir.Operation, flag: _Flag) -> None:
    """Waits before y, sets after x; credits and drains of carried edges around the kernel."""
    for edge in flag.edges:
        with ir.InsertionPoint(edge.y.op), edge.y.op.location:
            WaitFlagOp(_value(flag, edge), ir.StringAttr.get(edge.target))
        with _after(edge.x), edge.x.op.location:
            SetFlagOp(_value(flag, edge), ir.StringAttr.get(edge.source))
        body = body_of(kernel)
        for slot in range(edge.slots):
            with kernel.location:
                with ir.InsertionPoint.at_block_begin(body):
                    SetFlagOp(constant(flag.number + slot), ir.StringAttr.get(edge.source))
                with ir.InsertionPoint(body):
                    WaitFlagOp(constant(flag.number + slot), ir.StringAttr.get(edge.target))


def _value(flag: _Flag, edge: Edge) -> ir.Value:
    number = constant(flag.number)
    if edge.slots < 2:
        return number
    siblings = (op.operation for op in edge.x.op.block.operations)
    slots = (op for op in siblings if op.name == "npu_tile.slot")
    slot = next(op for op in slots if integer(op, "slots", None) == edge.slots)
    return arith.addi(number, slot.results[0])


def _after(item: Item) -> ir.InsertionPoint:
    return ir.InsertionPoint.after(item.op)
