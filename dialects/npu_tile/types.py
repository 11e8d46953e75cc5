"""Buffers as memref types: `memref<64x128xbf16, "spm">`, and i64 constants."""

import math
from collections.abc import Callable, Sequence

from opennpu.dialects.isa.table import DTYPE_BYTES
from torch_mlir import ir
from torch_mlir.dialects import arith

_ELEMENT_TYPES: dict[str, Callable[[], ir.Type]] = {
    "f32": ir.F32Type.get,
    "bf16": ir.BF16Type.get,
    "i64": lambda: ir.IntegerType.get_signless(64),
    "i32": lambda: ir.IntegerType.get_signless(32),
    "i8": lambda: ir.IntegerType.get_signless(8),
    "bool": lambda: ir.IntegerType.get_signless(1),
}


def i64() -> ir.IntegerType:
    return ir.IntegerType.get_signless(64)


def memref_type(shape: Sequence[int], dtype: str, space: str = "spm") -> ir.MemRefType:
    """The type of a tile buffer; `dtype` as in the instruction set (a bool is one byte)."""
    return ir.MemRefType.get(list(shape), _ELEMENT_TYPES[dtype](), memory_space=ir.StringAttr.get(space))


def dtype_of(memref: ir.Type) -> str | None:
    """The instruction set's name of the elements' type; None when it has none."""
    element = str(ir.MemRefType(memref).element_type)
    name = "bool" if element == "i1" else element
    return name if name in DTYPE_BYTES else None


def space_of(memref: ir.Type) -> str | None:
    space = ir.MemRefType(memref).memory_space
    return ir.StringAttr(space).value if isinstance(space, ir.StringAttr) else None


def memref_bytes(memref: ir.Type) -> int:
    """The size of a static buffer in bytes."""
    return math.prod(ir.MemRefType(memref).shape) * DTYPE_BYTES[dtype_of(memref)]


def constant(value: int) -> ir.Value:
    """An i64 constant at the current insertion point."""
    return arith.constant(i64(), value)


def constant_value(value: ir.Value) -> int | None:
    """The number behind an i64 constant, else None."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.name != "arith.constant":
        return None
    return ir.IntegerAttr(owner.attributes["value"]).value
