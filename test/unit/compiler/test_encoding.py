"""The instruction table, its encoding, assembly text and images: round trips and errors."""

import struct
import tomllib
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opennpu.compiler.assembly import AssemblyError, parse_assembly, print_image
from opennpu.compiler.image import ArgKind, Image, ImageError, pack_image, parse_image
from opennpu.dialects.isa import docs, table
from opennpu.dialects.isa.encoding import (
    Affine,
    EncodingError,
    Instruction,
    TileOperand,
    decode,
    encode,
)
from opennpu.dialects.isa.table import ISA, Field
from opennpu.tools import npu_as, npu_dis

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
REGISTER = st.integers(0, ISA.registers - 1)
AFFINE = st.builds(Affine, INT64, st.lists(st.tuples(REGISTER, INT64), max_size=4).map(tuple))
FLOAT = st.floats(width=32)


def values(f: Field) -> st.SearchStrategy:
    if f.enum:
        return st.sampled_from(f.only or ISA.enums[f.enum])
    if f.kind == "tile":
        space, dtype = (st.sampled_from(ISA.enums[name]) for name in ("space", "dtype"))
        return st.builds(TileOperand, space, dtype, AFFINE, INT64, INT64, INT64)
    return {"imm": FLOAT if f.f32 is True else INT64, "reg": REGISTER, "value": AFFINE}[f.kind]


@st.composite
def instructions(draw) -> Instruction:
    spec = draw(st.sampled_from(ISA.instructions))
    fields = {f.name: draw(values(f)) for f in spec.fields}
    if spec.name == "v_fill":
        fields["is_float"] = draw(st.integers(0, 1))
        fields["value"] = draw(FLOAT if fields["is_float"] else INT64)
    return Instruction(spec.name, fields, draw(st.integers(0, (1 << 32) - 1)))


PROGRAM = st.lists(instructions(), max_size=6)
IMAGE = st.builds(
    Image,
    st.integers(0, (1 << 64) - 1),
    st.lists(st.sampled_from(ArgKind), max_size=5).map(tuple),
    PROGRAM.map(encode),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4).map(tuple),
)


@settings(max_examples=50)
@given(PROGRAM)
def test_decode_gives_back_what_was_encoded(program):
    words = encode(program)
    assert (encode(decode(words)) == words).all()
    assert str(decode(words)) == str(program)  # as text: NaN is NaN


@settings(max_examples=25)
@given(IMAGE)
def test_image_and_assembly_round_trip(image):
    data = pack_image(image)
    assert pack_image(parse_image(data)) == data
    assert pack_image(parse_assembly(print_image(parse_image(data)))) == data


def test_the_words_of_an_instruction():
    """By hand, from the description at the top of isa.toml."""
    words = encode([Instruction("s_alu", {"op": "mul", "rd": 7, "a": Affine(-1, ((3, 64),)), "b": 5}, 9)])
    assert words.tolist() == [2 | 8 << 8 | 9 << 32, 2, 7, (1 << 64) - 1, 1 | 3 << 8, 64, 5, 0]
    fill = {"dst": TileOperand("acc", "f32", Affine(4)), "d0": 1, "d1": 1, "d2": 1}
    one = encode([Instruction("v_fill", {**fill, "value": 1, "is_float": 1})])
    assert one.tolist()[-2] == struct.unpack("<I", struct.pack("<f", 1.0))[0]


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("v_nothing", {}, "no such instruction"),
        ("s_mov", {"rd": 1}, r"missing fields \['a'\]"),
        ("s_mov", {"rd": 256, "a": 0}, "rd: 256 is out of range for register"),
        ("s_mov", {"rd": 1, "a": 1 << 63}, "a: .* out of range for a 64-bit integer"),
        ("s_mov", {"rd": 1, "a": Affine(0, ((1, 1),) * 5)}, "a: 5 terms, at most 4 fit"),
        ("s_ld", {"rd": 1, "addr": 0, "dtype": "bf16"}, "dtype: 'bf16' is not one of i64, i32"),
        ("set_flag", {"queue": "seq", "flag": 0}, "queue: 'seq' is not one of load"),
    ],
)
def test_what_has_no_encoding(name, fields, message):
    with pytest.raises(EncodingError, match=message):
        encode([Instruction("halt"), Instruction(name, fields)])


@pytest.mark.parametrize(
    "words, message",
    [
        ([255 | 1 << 8], "opcode 255 is no instruction"),
        ([12 | 2 << 8], "claims 2 words, 1 are left"),
        ([12], "claims 0 words"),
        ([12 | 1 << 8 | 1 << 16], "reserved bits"),
        ([4 | 2 << 8, 3], "ends within a field"),
        ([12 | 2 << 8, 0], "claims 2 words, its fields take 1"),
        ([4 | 3 << 8, 256, 0], "out of range"),
        ([7 | 3 << 8, 0, 5], "malformed register list"),
        ([9 | 4 << 8, 99, 0, 0], "99 is no queue"),
    ],
)
def test_words_that_are_no_instruction(words, message):
    with pytest.raises(EncodingError, match=message):
        decode(words)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("opcode = 2\n", "opcode = 1\n", "two instructions share an opcode"),
        ('enum = "alu"', 'enum = "nothing"', "s_alu.op: bad enum nothing"),
        ('engine = "matrix"', 'engine = "magic"', "unknown engine magic"),
        ('access = "r" }', 'access = "x" }', "bad access x"),
        ('dtype_of = "src"', 'dtype_of = "there"', "dtype_of names no field"),
    ],
)
def test_a_table_that_contradicts_itself(old, new, message):
    text = resources.files("opennpu.dialects.isa").joinpath("isa.toml").read_text()
    tomllib.loads(text.replace(old, new))
    with pytest.raises(table.TableError, match=message):
        table.load(text.replace(old, new))


def test_the_page_is_current():
    page = Path(docs.__file__).resolve().parents[2] / "docs" / "isa.md"
    assert page.read_text() == docs.page(), "run: python -m opennpu.dialects.isa.docs > docs/isa.md"


@pytest.mark.parametrize(
    "line, message",
    [
        ("v_nothing a=1", "line 1: no instruction is called 'v_nothing'"),
        ("s_mov a=1, rd=r2", "takes the fields rd, a, in this order"),
        ("s_mov rd=2, a=1", "'2' is no register"),
        ("s_mov rd=r2, a=r3*4", "is no affine value"),
        ("s_mov rd=r2, a=r3 + 4", "must come first"),
        ("s_ld dtype=i64, rd=r2, addr=spm[4]", r"write hbm\[…\]"),
        (".loc unquoted", "is no directive"),
    ],
)
def test_errors_name_the_line(line, message):
    with pytest.raises(AssemblyError, match=message):
        parse_assembly(line)


def test_broken_images():
    image = pack_image(Image(1, (ArgKind.READ,), encode([Instruction("halt")]), ("here",)))
    for data, message in [
        (b"ONPU", "does not start with"),
        (image[:-1], "the header tells of"),
        (image[:8] + b"\x09" + image[9:], "image version 9"),
        (image[:48] + b"\x07" + image[49:], "argument kind 7"),
    ]:
        with pytest.raises(ImageError, match=message):
            parse_image(data)


def test_the_commands(tmp_path, capsys):
    binary, text, again = (tmp_path / name for name in ("a.bin", "a.s", "b.bin"))
    loop = {"rd": 2, "lo": 0, "hi": Affine(0, ((1, 1),)), "step": 1}
    program = [Instruction("loop", loop, 1), Instruction("end_loop"), Instruction("halt")]
    binary.write_bytes(pack_image(Image(77, (ArgKind.WRITE,), encode(program), ("a", "b"))))
    assert npu_dis.main([str(binary), "-o", str(text)]) == 0
    assert "loop rd=r2, lo=0, hi=r1, step=1 @1" in text.read_text()
    assert npu_as.main([str(text), "-o", str(again)]) == 0
    assert again.read_bytes() == binary.read_bytes()
    assert npu_dis.main([str(text)]) == 1
    assert "neither a safetensors file nor a program image" in capsys.readouterr().err
