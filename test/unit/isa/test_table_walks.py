"""The bytes that isa.toml says an operand covers (`walk`, `run`) are those that the engines check."""

import pytest
from chip_lab import CHIP, HBM_REGISTER, Lab
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.dialects.isa.table import DTYPE_BYTES, ELEMENT, ISA, Field
from opennpu.runtime.device import NpuError
from test_traps import good, run

SIZES = {"spm": CHIP.spm_bytes, "acc": CHIP.acc_bytes}
PLACE = 8192  # operands that are not looked at lie this far apart

# Without those in HBM, where the end of a buffer need not be the end of what is mapped, and without mx_mul,
# whose rows are as long as the stationary tile.
OPERANDS = [
    (spec.name, f.name)
    for spec in ISA.engine_instructions
    for f in spec.fields
    if f.access and f.walk and f.run and f.space != "hbm" and spec.name != "mx_mul"
]


def spread(lab: Lab, name: str) -> Instruction:
    """An instruction of this name with counts of 1 to 3 and strides that leave gaps."""
    instruction = good(lab, name)
    strides, count = {}, 0
    for f in ISA[name].fields:
        size = DTYPE_BYTES[instruction.fields[f.name].dtype] if f.kind == "tile" else 4
        at = Affine(PLACE * count)
        if f.on_chip:
            count += 1
        if f.kind == "tile":
            steps = [size * lab.number(100, 150), size * lab.number(20, 30), size * lab.number(1, 5)]
            instruction.fields[f.name] = TileOperand("spm", instruction.fields[f.name].dtype, at, *steps)
        elif f.on_chip:
            instruction.fields[f.name] = at
        elif f.space == "hbm":
            instruction.fields[f.name] = Affine.reg(HBM_REGISTER + (f.name == "index"))
        for step, (counter, stride) in enumerate(f.walk):
            instruction.fields[counter] = lab.number(1, 4)
            if stride != ELEMENT and f.kind != "tile":
                strides[stride] = 64 * lab.number(1, 3) * 3 ** (3 - step)
    if "row_stride" in instruction.fields:
        strides["row_stride"] = 64  # the walk of the rows in HBM depends on the indices
    instruction.fields.update(strides)
    return instruction


def covered(instruction: Instruction, f: Field) -> int:
    """Bytes from the first to the last of an operand, as the table says."""
    fields, operand = instruction.fields, instruction.fields[f.name]
    element = DTYPE_BYTES[operand.dtype if f.kind == "tile" else f.elements or "i8"]

    def value(name: str) -> int:
        if name == ELEMENT:
            return element
        return getattr(operand, name) if f.kind == "tile" and name in ("s0", "s1", "s2") else fields[name]

    return value(f.run) + sum((value(counter) - 1) * value(stride) for counter, stride in f.walk)


def move(instruction: Instruction, f: Field, space: str, address: int) -> Instruction:
    operand = instruction.fields[f.name]
    moved = Affine(address)
    if f.kind == "tile":
        moved = TileOperand(space, operand.dtype, moved, operand.s0, operand.s1, operand.s2)
    return Instruction(instruction.name, {**instruction.fields, f.name: moved})


@pytest.mark.parametrize(("name", "operand"), OPERANDS)
def test_up_to_the_last_byte(lab, name, operand):
    instruction, f = spread(lab, name), ISA[name].by_name[operand]
    for space in ("spm", "acc") if f.kind == "tile" else (f.space,):
        last = SIZES[space] - covered(instruction, f)
        run(lab, move(instruction, f, space, last))
        with pytest.raises(NpuError, match=f"operand {operand}" if lab.exact else name):
            run(lab, move(instruction, f, space, last + 8))
