"""The laboratory on the interpreter of `npu_tile`: the same instructions, no engine."""

from collections.abc import Iterator

import torch
from chip_lab import CHIP, HBM_REGISTER, Lab, Result
from opennpu.compiler.interpreters.tile import Machine
from opennpu.compiler.interpreters.tile_memory import Hbm, Operand
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.dialects.isa.table import ISA


class InterpreterLab(Lab):
    """As Lab; `run` raises TileFault where an engine's raises NpuError."""

    def run(self, *instructions: Instruction, hbm: tuple[torch.Tensor, ...] = ()) -> Result:
        before = {space: data.clone() for space, data in self.memory.items()}
        memory = Hbm()
        addresses = [memory.add(buffer.numpy(), writable=True) for buffer in hbm]
        machine = Machine(CHIP, memory, [])
        (core,) = machine.cores
        for space, data in self.memory.items():
            core.memories[space][:] = data.numpy()
        for instruction in instructions:
            machine.execute(core, instruction.name, dict(_fields(core, instruction, addresses)))
        return Result(before, {space: torch.from_numpy(core.memories[space]) for space in before})


def _fields(core, instruction: Instruction, addresses: list[int]) -> Iterator[tuple[str, object]]:
    """The fields as the engine op of `npu_tile` has them."""
    given = instruction.fields
    for f in ISA[instruction.name].fields:
        value = given.get(f.name)
        match value:
            case TileOperand():
                strides = (value.s0, value.s1, value.s2)
                place = _number(value.addr, addresses)
                yield f.name, Operand(core.memories[value.space], place, value.dtype, strides)
            case _ if f.on_chip:
                dtype = f.elements or given.get("dtype") or "bf16"
                yield f.name, Operand(core.memories[f.space], _number(value, addresses), dtype)
            case _ if f.name == "is_float":
                continue
            case str() | float():
                yield f.name, value
            case _:
                yield f.name, _number(value, addresses)


def _number(value: int | Affine, addresses: list[int]) -> int:
    if isinstance(value, int):
        return value
    return value.imm + sum(coef * addresses[reg - HBM_REGISTER] for reg, coef in value.terms)
