"""The operations of `npu_isa`: `program`, and one per row of the instruction table."""

from typing import Any

from opennpu.dialects.isa.encoding import EncodingError, Instruction, encode_one
from opennpu.dialects.isa.table import ISA, InstructionSpec
from opennpu.dialects.npu_isa.attributes import from_attribute, to_attribute
from torch_mlir import ir
from torch_mlir.dialects import ext
from torch_mlir.dialects.ext import Region


class NpuIsa(ext.Dialect, name="npu_isa"):
    """Chip instructions."""


class ProgramOp(NpuIsa.Operation, name="program", traits=[ir.NoTerminatorTrait]):
    """The text of a program."""

    body: Region


def _instruction_op(spec: InstructionSpec) -> type:
    """The class of one instruction: no operands, every field an attribute."""
    body = {
        "__annotations__": {f.name: Any for f in spec.fields},
        "__doc__": spec.semantics,
        "verify_invariants": staticmethod(_verify),
    }
    class_name = "".join(part.capitalize() for part in spec.name.split("_")) + "Op"
    return type(class_name, (NpuIsa.Operation,), body, name=spec.name)


def _verify(op: ir.OpView) -> bool:
    """An instruction is valid when it has an encoding."""
    try:
        encode_one(instruction_of(op))
    except EncodingError as error:
        op.location.emit_error(f"'{op.name}' op {error}")
        return False
    return True


def instruction_of(op: ir.OpView | ir.Operation, loc: int = 0) -> Instruction:
    """The instruction an operation stands for. EncodingError when an attribute is missing or malformed."""
    spec = ISA[op.name.partition(".")[2]]
    missing = [f.name for f in spec.fields if f.name not in op.attributes]
    if missing:
        raise EncodingError(f"lacks the attributes {', '.join(missing)}")
    fields = {f.name: from_attribute(f, op.attributes[f.name]) for f in spec.fields}
    return Instruction(spec.name, fields, loc)


INSTRUCTION_OPS: dict[str, type] = {spec.name: _instruction_op(spec) for spec in ISA}


def build(instruction: Instruction, loc: ir.Location | None = None) -> ir.OpView:
    """Makes the operation of an instruction at the current insertion point."""
    spec = ISA[instruction.name]
    attributes = {f.name: to_attribute(f, instruction.fields[f.name]) for f in spec.fields}
    return INSTRUCTION_OPS[instruction.name](**attributes, loc=loc)


def program(loc: ir.Location | None = None) -> ProgramOp:
    """An empty program at the current insertion point."""
    op = ProgramOp(loc=loc)
    op.body.blocks.append()
    return op


def load(context: ir.Context | None = None) -> None:
    """Loads the dialect into `context` (the current one), unless it is there already."""
    with context or ir.Context.current as current:
        if not current.is_dialect_loaded(NpuIsa.DIALECT_NAMESPACE):
            NpuIsa.load()
