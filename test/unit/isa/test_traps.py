"""What every instruction refuses: operands outside their memory, and forbidden ones.

Each message names the instruction and, on the reference engine, the operand.
"""

import pytest
import torch
from chip_lab import CHIP, HBM_REGISTER, Lab, dma
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.device import NpuError
from test_dma_gather import CASES, indexed

FAR = 1 << 62
HBM = Affine.reg(HBM_REGISTER)
EXTENTS = {"d0": 1, "d1": 1, "d2": 4}
SCALARS = {"value": 1.0, "is_float": 1, "base": 0, "step0": 0, "step1": 0, "step2": 0, "limit": 4}


def tile(dtype="f32", space="spm", addr=0, strides=(0, 0, 4)) -> TileOperand:
    return TileOperand(space, dtype, Affine(addr), *strides)


def good(lab: Lab, name: str) -> Instruction:
    """A small instruction of this name that is right."""
    match name:
        case "dma_load" | "dma_store":
            return dma(
                name,
                dst=0 if name == "dma_load" else HBM,
                src=HBM if name == "dma_load" else 0,
                n=(1, 1, 1),
                bytes=64,
            )
        case "dma_gather" | "dma_scatter":
            return indexed(lab, name, *CASES[0], torch.zeros(3, dtype=torch.int64), "i64")[0]
        case "mx_load":
            return Instruction(name, {"src": 0, "dtype": "f32", "layout": "kn", "k": 4, "n": 4, "stride": 16})
        case "mx_mul":
            return Instruction(
                name, {"dst": 0, "dst_stride": 16, "src": 0, "src_stride": 16, "rows": 2, "accumulate": 1}
            )
        case "v_softmax_step":
            vectors = {"m": 64, "l": 128, "alpha": 192, "rows": 2, "n": 4, "scale": 1.0, "cap": 0.0}
            mask = {"causal": 0, "group": 1, "pos": 0, "key": 0, "window": 0}
            rows = {"p": tile(addr=512, strides=(0, 16, 4)), "s": tile(addr=256, strides=(0, 16, 4))}
            return Instruction(name, {**rows, **vectors, **mask})
    if name == "v_transpose":
        return Instruction(name, {"dst": tile(addr=1024, strides=(0, 4, 4)), "a": tile(), **EXTENTS})
    fields = {**EXTENTS, **SCALARS, "op": "exp" if name == "v_unary" else "max"}
    for i, f in enumerate(ISA[name].fields):
        if f.kind == "tile":
            fields[f.name] = tile("i32" if f.name == "index" else "f32", addr=64 * i)
    return Instruction(name, {f.name: fields[f.name] for f in ISA[name].fields})


def run(lab: Lab, instruction: Instruction) -> None:
    load = [good(lab, "mx_load")] if instruction.name == "mx_mul" else []
    for data in lab.memory.values():
        data.zero_()  # the indices of v_gather
    lab.run(*load, instruction, hbm=(lab.bytes(16384), torch.zeros(3, dtype=torch.int64).view(torch.uint8)))


ENGINE = [spec.name for spec in ISA.engine_instructions]
OPERANDS = [(spec.name, f.name) for spec in ISA.engine_instructions for f in spec.fields if f.access]


@pytest.mark.parametrize("name", ENGINE)
def test_the_good_ones_run(lab, name):
    run(lab, good(lab, name))


@pytest.mark.parametrize("address", [-4, CHIP.hbm_bytes * 4, FAR, -FAR])
@pytest.mark.parametrize(("name", "operand"), OPERANDS)
def test_outside(lab, name, operand, address):
    instruction = good(lab, name)
    field = instruction.fields[operand]
    at = Affine(address)
    instruction.fields[operand] = (
        tile(field.dtype, field.space, address, (field.s0, field.s1, 4))
        if isinstance(field, TileOperand)
        else at
    )
    with pytest.raises(NpuError, match=name) as trap:
        run(lab, instruction)
    if lab.exact:
        assert f"operand {operand}" in str(trap.value)


def changed(lab: Lab, name: str, **fields) -> Instruction:
    instruction = good(lab, name)
    instruction.fields.update(fields)
    return instruction


@pytest.mark.parametrize(("space", "size"), [("spm", CHIP.spm_bytes), ("acc", CHIP.acc_bytes)])
def test_the_last_byte(lab, space, size):
    run(lab, changed(lab, "v_fill", dst=tile(space=space, addr=size - 16)))
    with pytest.raises(NpuError) as trap:
        run(lab, changed(lab, "v_fill", dst=tile(space=space, addr=size - 12)))
    if lab.exact:
        what = {"spm": "a scratchpad", "acc": "an accumulator"}[space]
        assert f"operand dst: reaches byte {size + 4} of {what} of {size} bytes" in str(trap.value)


FORBIDDEN = {
    "a count that reaches out": ("v_fill", {"d1": FAR, "dst": tile(strides=(0, 16, 4))}),
    "a stride that reaches out": ("v_unary", {"d1": 2, "a": tile(strides=(0, FAR, 4))}),
    "a stride that reaches below": ("v_unary", {"d1": 2, "a": tile(strides=(0, -64, 4))}),
    "an address within an element": ("v_unary", {"a": tile(addr=2)}),
    "a stride within an element": ("v_unary", {"a": tile(strides=(0, 0, 6))}),
    "a float as index": ("v_gather", {"index": tile("f32")}),
    "a transpose that casts": ("v_transpose", {"dst": tile("bf16", addr=1024, strides=(0, 2, 2))}),
    "softmax of bf16": ("v_softmax_step", {"s": tile("bf16", addr=256, strides=(0, 16, 2))}),
    "a softmax group of 0": ("v_softmax_step", {"group": 0}),
    "a tile higher than the unit": ("mx_load", {"k": CHIP.mx_k + 1}),
    "a tile wider than the unit": ("mx_load", {"n": CHIP.mx_n + 1}),
    "a tile of negative height": ("mx_load", {"k": -1}),
    "a group of 0": ("dma_gather", {"group": 0}),
    "a list that ends too soon": ("dma_gather", {"count": 4}),
    "an index at the limit": ("dma_gather", {"limit": 0}),
    "an index at the limit of a scatter": ("dma_scatter", {"limit": 0}),
    "an index at the limit of a tile": ("v_gather", {"limit": 0}),
    "rows beyond the table": ("dma_gather", {"rows": 2, "row_stride": 1 << 40}),
    "a store into a buffer that is only read": ("dma_store", {"dst": Affine.reg(10)}),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_forbidden(lab, what):
    name, fields = FORBIDDEN[what]
    with pytest.raises(NpuError, match=name):
        run(lab, changed(lab, name, **fields))


@pytest.mark.parametrize(
    ("name", "fields"), [("v_fill", {"dst": tile(strides=(0, 0, 0))}), ("mx_mul", {"dst_stride": 0})]
)
def test_a_written_operand_that_repeats(lab, name, fields):
    if lab.exact:  # only the reference engine looks
        with pytest.raises(NpuError, match="operand dst is written with a stride of 0 under a count of"):
            run(lab, changed(lab, name, **fields))


def test_a_gather_that_overwrites_its_indices(lab):
    """The indices 0 and 0 are good, until the first element written replaces the second."""
    spm = lab.memory["spm"].view(torch.int64)
    spm[:3] = torch.tensor([0, 0, 1 << 40])
    at = {name: tile("i64", addr=8 * i, strides=(0, 0, 8)) for i, name in enumerate(("index", "dst", "a"))}
    gather = Instruction("v_gather", {**at, "d0": 1, "d1": 1, "d2": 2, "limit": 1})
    with pytest.raises(NpuError, match=r"v_gather.*dst overlaps operand index"):
        lab.run(gather)


def test_indices_out_of_range(lab):
    table, (page, row) = lab.bytes(5000), CASES[0]
    for bad in (-1, page[3]):
        gather, listed = indexed(lab, "dma_gather", page, row, torch.tensor([0, bad]), "i32")
        with pytest.raises(NpuError, match=f"{bad}"):
            lab.run(gather, hbm=(table, listed))
