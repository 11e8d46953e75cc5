"""The operations of `npu_tile`: a few for structure, and one per engine instruction of the table."""

from collections.abc import Callable, Sequence
from typing import Any

from opennpu.dialects.isa.table import ISA, InstructionSpec
from opennpu.dialects.npu_tile import verify
from opennpu.dialects.npu_tile.effects import AllocEffects, EngineEffects, is_derived
from opennpu.dialects.npu_tile.types import (
    constant,
    constant_value,
    dtype_of,
    i64,
    memref_bytes,
    memref_type,
)
from torch_mlir import ir
from torch_mlir.dialects import ext
from torch_mlir.dialects.ext import Operand, Pure, Region, Result

I64 = ir.IntegerType[64]
QUEUES = ISA.enums["queue"]


class NpuTile(ext.Dialect, name="npu_tile"):
    """Tiles, DMA and loops."""


class KernelOp(NpuTile.Operation, name="kernel", traits=[ir.NoTerminatorTrait]):
    """One kernel; ends in a chip barrier. `kernel` is its name, `source` the `npu` op it came from."""

    kernel: ir.StringAttr
    source: ir.StringAttr
    body: Region


class CoreOp(NpuTile.Operation, name="core", traits=[Pure]):
    """This core's number."""

    res: Result[I64] = ext.result(default_factory=i64)


class CoresOp(NpuTile.Operation, name="cores", traits=[Pure]):
    """The number of cores."""

    res: Result[I64] = ext.result(default_factory=i64)


class ArgOp(NpuTile.Operation, name="arg", traits=[Pure]):
    """Launch argument `index`: a scalar, or the address of a buffer."""

    index: ir.IntegerAttr
    res: Result[I64] = ext.result(default_factory=i64)


class LoadScalarOp(NpuTile.Operation, name="load_scalar"):
    """The integer at HBM byte address `addr`; `dtype` is "i64" or "i32"."""

    addr: Operand[I64]
    dtype: ir.StringAttr
    res: Result[I64] = ext.result(default_factory=i64)
    verify_invariants = staticmethod(verify.load_scalar)


class AllocOp(NpuTile.Operation, name="alloc", traits=[AllocEffects]):
    """A tile buffer; planning adds `address` (bytes), double buffering `slots` and `loop` (see `slot`).

    It may say how many slots it `wants` before others have more than one.
    """

    buffer: Result[ir.MemRefType]
    verify_invariants = staticmethod(verify.alloc)


class SlotOp(NpuTile.Operation, name="slot", traits=[Pure]):
    """`turn`, a number of the iterations of the loop around it, modulo `slots`. `loop` numbers the kernel's
    such loops."""

    turn: Operand[I64]
    loop: ir.IntegerAttr
    slots: ir.IntegerAttr
    res: Result[I64] = ext.result(default_factory=i64)
    verify_invariants = staticmethod(verify.slot)


class SetFlagOp(NpuTile.Operation, name="set_flag"):
    """Adds 1 to a flag once the queue's earlier work has completed."""

    flag: Operand[I64]
    queue: ir.StringAttr
    verify_invariants = staticmethod(verify.queue)


class WaitFlagOp(NpuTile.Operation, name="wait_flag"):
    """Holds the queue's later work until a flag is above 0, then subtracts 1."""

    flag: Operand[I64]
    queue: ir.StringAttr
    verify_invariants = staticmethod(verify.queue)


def _engine_op(spec: InstructionSpec) -> type:
    """The class of one engine instruction: operands and attributes follow from its fields."""
    operands: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for f in spec.fields:
        if f.on_chip:
            operands[f.name] = Operand[ir.MemRefType]
            operands[f"{f.name}_offset"] = Operand[I64]
            if f.kind == "tile":
                attributes[f"{f.name}_strides"] = Any
        elif f.kind == "value":
            operands[f.name] = Operand[I64]
        elif not is_derived(spec, f):
            attributes[f.name] = Any
    body = {
        "__annotations__": {**operands, **attributes},
        "__doc__": spec.semantics,
        "verify_invariants": staticmethod(lambda op: verify.engine(spec, op)),
    }
    class_name = "".join(part.capitalize() for part in spec.name.split("_")) + "Op"
    return type(class_name, (NpuTile.Operation,), body, name=spec.name, traits=[EngineEffects])


ENGINE_OPS: dict[str, type] = {spec.name: _engine_op(spec) for spec in ISA.engine_instructions}


def load(context: ir.Context | None = None) -> None:
    """Loads the dialect into `context` (the current one), unless it is there already."""
    with context or ir.Context.current as current:
        if not current.is_dialect_loaded(NpuTile.DIALECT_NAMESPACE):
            NpuTile.load()


def build(
    name: str,
    operands: dict[str, ir.Value | int | tuple[ir.Value, ir.Value | int]],
    attributes: dict[str, int | float | str | Sequence[int]] | None = None,
    loc: ir.Location | None = None,
) -> ir.OpView:
    """Makes the engine operation `name` at the current insertion point.

    Buffer fields are (memref, byte offset), other operands i64 values or ints. Strides are three
    byte counts; an imm is an int, a name of its enum, or a float. KeyError names what is missing.
    """
    spec = ISA[name]
    arguments: dict[str, Any] = {}
    for f in spec.fields:
        if f.on_chip:
            buffer, offset = operands[f.name]
            arguments[f.name] = buffer
            arguments[f"{f.name}_offset"] = _as_value(offset)
        elif f.kind == "value":
            arguments[f.name] = _as_value(operands[f.name])
    for key, value in (attributes or {}).items():
        arguments[key] = _as_attribute(value)
    return ENGINE_OPS[name](**arguments, loc=loc)


def alloc(
    shape: Sequence[int], dtype: str, space: str = "spm", wants: int = 0, loc: ir.Location | None = None
) -> ir.Value:
    """A fresh tile buffer, which wants so many slots (0: no matter)."""
    op = AllocOp(memref_type(shape, dtype, space), loc=loc)
    if wants:
        op.attributes["wants"] = ir.IntegerAttr.get(i64(), wants)
    return op.buffer


def _as_value(value: ir.Value | int) -> ir.Value:
    return constant(value) if isinstance(value, int) else value


_ATTRIBUTES: dict[type, Callable[[Any], ir.Attribute]] = {
    bool: lambda v: ir.IntegerAttr.get(i64(), int(v)),
    int: lambda v: ir.IntegerAttr.get(i64(), v),
    float: lambda v: ir.FloatAttr.get_f32(v),
    str: lambda v: ir.StringAttr.get(v),
    list: lambda v: ir.DenseI64ArrayAttr.get(v),
    tuple: lambda v: ir.DenseI64ArrayAttr.get(list(v)),
}


def _as_attribute(value: Any) -> ir.Attribute:
    return _ATTRIBUTES[type(value)](value)


__all__ = [
    "ENGINE_OPS",
    "QUEUES",
    "AllocOp",
    "ArgOp",
    "CoreOp",
    "CoresOp",
    "KernelOp",
    "LoadScalarOp",
    "NpuTile",
    "SetFlagOp",
    "SlotOp",
    "WaitFlagOp",
    "alloc",
    "build",
    "constant",
    "constant_value",
    "dtype_of",
    "load",
    "memref_bytes",
    "memref_type",
]
