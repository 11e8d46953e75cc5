"""The loader refuses every image that is wrong in one field, and says which."""

import numpy as np
import pytest
from image_builder import CHIP, READ, SCALAR, copy_program, image, op, r, raw_image
from opennpu.dialects.isa.encoding import Affine, TileOperand, encode
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, NpuError

HALT = 12 | 1 << 8


@pytest.fixture(scope="module")
def reference():
    return Device(CHIP, engine="reference", hbm_bytes=1 << 20)


def refused(device, data: bytes, message: str, status: str = "invalid_program") -> None:
    with pytest.raises(NpuError, match=message) as error:
        device.load(data)
    assert error.value.status == status


def test_a_right_image_loads(reference):
    reference.load(copy_program())
    reference.load(image())
    reference.load(raw_image([HALT], locs=()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"ONPUPROX"}, "does not start with ONPUPROG"),
        ({"version": 2}, "format version 2"),
        ({"isa": 99}, "instruction set version 99.*compile the model again"),
        ({"words": 2}, "needs|bytes are left|location"),
        ({"words": 1 << 40}, "2\\^32 words"),
        ({"nargs": 1 << 30}, "argument kinds needs"),
        ({"nlocs": 0xFFFFFFFF}, "location offsets needs"),
        ({"nlocs": 0}, "location"),
        ({"loc_bytes": 5}, "location text needs"),
        ({"loc_bytes": 3}, "location offsets do not run"),
    ],
)
def test_header_fields(reference, fields, message):
    refused(reference, raw_image([HALT], **fields), message)


def test_other_chip_is_named(reference):
    data = image(chip=Chip.load("npu1"))
    refused(reference, data, f"{Chip.load('npu1').fingerprint:016x}.*npu1-lite", "wrong_chip")


@pytest.mark.parametrize("size", range(0, 68))
def test_truncation(reference, size):
    refused(reference, raw_image([HALT])[:size], "invalid program image")


def test_bytes_after_the_end(reference):
    refused(reference, raw_image([HALT]) + b"x", "1 bytes after the end")


def test_argument_kind(reference):
    refused(reference, raw_image([HALT], args=(0, 3)), "argument 1 has the unknown kind 3")


def test_padding_must_be_zero(reference):
    data = bytearray(raw_image([HALT], args=(0,)))
    data[52] = 1
    refused(reference, bytes(data), "padding")


def test_location_offsets_must_ascend(reference):
    data = bytearray(raw_image([HALT], locs=(b"ab", b"cd")))
    data[-4 - 8 : -4 - 4] = (9).to_bytes(4, "little")
    refused(reference, bytes(data), "location offset")


# ---- text


def words(*body) -> list[int]:
    return [int(w) for w in encode([*body, op("halt")])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "does not end with halt"),
        ([200 | 1 << 8, HALT], "unknown opcode 200"),
        ([HALT | 1 << 16], "reserved bits"),
        ([HALT | 1 << 32], "location 1 is not in the table"),
        ([12 | 2 << 8], "run past the text"),
        ([12], "run past the text"),
        ([12 | 2 << 8, 0], "fields end before its words"),
        ([1 | 2 << 8, 3, HALT], "words end before its fields"),
        ([1 | 4 << 8, 256, 0, 0, HALT], "rd is not a register: 256"),
        ([1 | 4 << 8, 2, 0, 5, HALT], "malformed list of registers"),
        ([1 | 4 << 8, 2, 0, 1 << 8, HALT], "malformed list of registers"),
        ([1 | 4 << 8, 2, 0, 1 << 16, HALT], "malformed list of registers"),
    ],
)
def test_encoding(reference, text, message):
    refused(reference, raw_image(text), message)


@pytest.mark.parametrize("name", [row.name for row in ISA])
def test_every_enumerated_field_is_checked(reference, name):
    """Each imm with an enum, replaced by a number that is no member."""
    prefix = {"end_loop": [op("loop", rd=2, step=1)], "end_if": [op("if")]}.get(name, [])
    suffix = {"loop": [op("end_loop")], "if": [op("end_if")]}.get(name, [])
    fields = {"loop": {"rd": 2, "step": 1}}.get(name, {})
    if name in ("dma_gather", "dma_scatter", "v_softmax_step"):
        fields = {"group": 1}
    if name == "halt":
        return
    body = [*prefix, op(name, **fields), *suffix]
    if name == "s_arg":
        refused(reference, image(*body), "no such argument")
        return
    reference.load(image(*body))
    begin = len(encode(prefix))
    at = begin + 1
    for field in ISA[name].fields:
        size = {"imm": 1, "reg": 1, "value": 2, "tile": 7}[field.kind]
        checked = {"imm": [(0, 77)] if field.enum else [], "reg": [(0, 256)], "value": [(1, 5)]}
        checked["tile"] = [(0, 2), (1, 6), (3, 5)]
        for offset, wrong in checked[field.kind]:
            text = words(*body)
            text[at + offset] = wrong
            refused(reference, raw_image(text), rf"\({name}\): {field.name}")
        at += size


def test_float_bits_are_checked(reference):
    tile = TileOperand("spm", "f32", Affine(0))
    body = op("v_fill", dst=tile, d0=1, d1=1, d2=1, value=1.5, is_float=1)
    text = words(body)
    text[text.index(int(np.float32(1.5).view(np.uint32)))] |= 1 << 40
    refused(reference, raw_image(text), "value is not the bits of an f32")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([op("loop", rd=2, step=1)], "no end"),
        ([op("if")], "no end"),
        ([op("end_loop")], "ends nothing that is open"),
        ([op("end_if")], "ends nothing that is open"),
        ([op("loop", rd=2, step=1), op("if"), op("end_loop"), op("end_if")], "ends nothing that is open"),
        ([op("halt")], "halt is not the last"),
        ([op("loop", rd=2, step=0), op("end_loop")], "step is not positive"),
        ([op("loop", rd=2, step=1), op("s_mov", rd=2), op("end_loop")], "enclosing loop counts in"),
        (
            [op("loop", rd=2, step=1), op("loop", rd=2, step=1), op("end_loop"), op("end_loop")],
            "enclosing loop counts in",
        ),
        ([op("s_arg", rd=2, index=2)], "no such argument"),
        ([op("s_arg", rd=2, index=-1)], "no such argument"),
        ([op("s_alu", op="div", rd=2, a=1, b=0)], "divides by 0"),
        ([op("s_alu", op="mod", rd=2, a=1, b=0)], "divides by 0"),
        ([op("set_flag", flag=64)], "no such flag"),
        ([op("wait_flag", flag=-1)], "no such flag"),
        ([op("mx_load", k=CHIP.mx_k + 1)], "mx_k"),
        ([op("mx_load", n=-1)], "mx_n"),
        ([op("dma_gather")], "group is less than 1"),
        ([op("dma_scatter", group=-3)], "group is less than 1"),
        ([op("v_softmax_step")], "group is less than 1"),
    ],
)
def test_structure(reference, body, message):
    refused(reference, image(*body, args=(SCALAR, READ)), message)


def test_error_names_instruction_and_source(reference):
    data = image(op("s_mov", rd=2), op("set_flag", flag=64, loc=1), locs=("a", "model.norm at model.py:7"))
    refused(reference, data, r"instruction 1 \(set_flag\) of model.norm at model.py:7: there is no such flag")


def test_registers_are_not_taken_for_constants(reference):
    """What is not known at load is left to the run."""
    reference.load(image(op("s_alu", op="div", rd=2, a=1, b=r(3)), op("set_flag", flag=r(4, 1, 100))))
