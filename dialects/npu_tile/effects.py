"""What an engine operation reads and writes, from `access` in the instruction table."""

from dataclasses import dataclass

from opennpu.dialects.isa.table import ISA, Field, InstructionSpec
from torch_mlir import ir


@dataclass(frozen=True)
class Access:
    """One buffer operand of an operation."""

    field: str
    buffer: ir.Value
    reads: bool
    writes: bool


def spec_of(op: ir.OpView | ir.Operation) -> InstructionSpec | None:
    """The instruction an `npu_tile` operation stands for; None if it is no engine operation."""
    dialect, _, name = op.name.partition(".")
    spec = ISA.by_name.get(name) if dialect == "npu_tile" else None
    return spec if spec is not None and spec.is_engine else None


def is_derived(spec: InstructionSpec, f: Field) -> bool:
    """Whether an imm says only that another imm is a float, which that attribute's type tells."""
    return any(g.f32 == f.name for g in spec.fields)


def operand_names(spec: InstructionSpec) -> list[str]:
    """The operands of an engine operation in order: `f`, `f_offset` for a buffer, `f` for a value."""
    names: list[str] = []
    for f in spec.fields:
        if f.on_chip:
            names += [f.name, f"{f.name}_offset"]
        elif f.kind == "value":
            names.append(f.name)
    return names


def accesses(op: ir.OpView | ir.Operation) -> list[Access]:
    """The buffers an engine operation touches; [] for any other operation."""
    spec = spec_of(op)
    if spec is None:
        return []
    operands = dict(zip(operand_names(spec), op.operands, strict=True))
    return [Access(f.name, operands[f.name], f.reads, f.writes) for f in spec.buffers]


class _EngineEffects(ir.MemoryEffectsOpInterface):
    """Buffers by operand; HBM and the matrix unit's stationary tile by the default resource."""

    @staticmethod
    def get_effects(op, effects):
        spec = spec_of(op)
        position = {name: i for i, name in enumerate(operand_names(spec))}
        for f in spec.fields:
            target = op.operation.op_operands[position[f.name]] if f.on_chip else None
            if f.reads:
                effects.append(ir.MemoryEffect.Read, target)
            if f.writes:
                effects.append(ir.MemoryEffect.Write, target)
        if not any(f.writes for f in spec.fields):
            effects.append(ir.MemoryEffect.Write)


class EngineEffects:
    """Trait of every engine operation."""

    @staticmethod
    def attach(op_name: str) -> None:
        _EngineEffects.attach(op_name)


class _AllocEffects(ir.MemoryEffectsOpInterface):
    @staticmethod
    def get_effects(op, effects):
        effects.append(ir.MemoryEffect.Allocate, op.operation.results[0])


class AllocEffects:
    """Trait of `alloc`: an unused one may go, two are never the same."""

    @staticmethod
    def attach(op_name: str) -> None:
        _AllocEffects.attach(op_name)
