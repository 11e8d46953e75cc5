"""What the passes on `npu_tile` share: finding kernels and buffers in the IR."""

from collections.abc import Iterator
from dataclasses import dataclass

from opennpu.dialects.npu_tile import memref_bytes
from opennpu.dialects.npu_tile.types import i64, space_of
from torch_mlir import ir

ALIGN = 64  # buffers start at a multiple of this many bytes


@dataclass(frozen=True)
class Buffer:
    """A tile buffer: `slots` copies of `slot_bytes` (a multiple of ALIGN), used in turn by loop `loop`."""

    op: ir.Operation
    space: str
    slot_bytes: int
    slots: int
    loop: int | None

    @property
    def bytes(self) -> int:
        return self.slot_bytes * self.slots


def kernels(module: ir.Module) -> list[ir.Operation]:
    """The kernels in program order."""
    return [op for op in walk(module.body) if op.name == "npu_tile.kernel"]


def walk(block: ir.Block) -> Iterator[ir.Operation]:
    """All operations below a block in program order, parents first."""
    for op in list(block.operations):
        yield op.operation
        for region in op.operation.regions:
            for inner in region.blocks:
                yield from walk(inner)


def body_of(op: ir.Operation) -> ir.Block:
    return op.regions[0].blocks[0]


def allocs(kernel: ir.Operation) -> list[ir.Operation]:
    return [op for op in walk(body_of(kernel)) if op.name == "npu_tile.alloc"]


def buffer_of(alloc: ir.Operation) -> Buffer:
    """What an alloc asks for."""
    memref = alloc.results[0].type
    return Buffer(
        alloc, space_of(memref), slot_bytes(memref), integer(alloc, "slots", 1), integer(alloc, "loop", None)
    )


def slot_bytes(memref: ir.Type) -> int:
    """From one slot of a buffer to the next."""
    return -(-memref_bytes(memref) // ALIGN) * ALIGN


def integer(op: ir.Operation, name: str, default: int | None) -> int | None:
    return ir.IntegerAttr(op.attributes[name]).value if name in op.attributes else default


def integer_attr(value: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(i64(), value)


def kernel_name(kernel: ir.Operation) -> str:
    return ir.StringAttr(kernel.attributes["kernel"]).value


def enclosing(op: ir.Operation, name: str) -> ir.Operation | None:
    """The innermost operation `name` around `op`."""
    parent = op.parent
    while parent is not None and parent.name != name:
        parent = parent.operation.parent
    return parent.operation if parent is not None else None
