"""Instructions to 64-bit words and back.

An `Instruction` holds its fields by name:

    imm     int; a str where the field has an enum; a float where it is an f32
    reg     int
    value   Affine (an int is taken as a constant)
    tile    TileOperand

    encode([Instruction("s_mov", {"rd": 2, "a": Affine(8, ((0, 64),))}), Instruction("halt")])

The layout of the words is described at the top of `isa.toml`. `decode(encode(x)) == x`, and
`encode(decode(w))` is `w` for every text that decodes.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from opennpu.dialects.isa.table import ISA, MAX_TERMS, Field

_MASK = (1 << 64) - 1
_NAN_BITS = 0x7FC00000


class EncodingError(ValueError):
    """An instruction that has no encoding, or words that are no instruction."""


@dataclass(frozen=True)
class Affine:
    """imm + Σ coef·register, wrapping at 64 bits; `terms` is ((register, coef), …)."""

    imm: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def reg(number: int) -> "Affine":
        return Affine(0, ((number, 1),))


@dataclass(frozen=True)
class TileOperand:
    """A strided operand in scratchpad or accumulator; the strides are in bytes."""

    space: str
    dtype: str
    addr: Affine
    s0: int = 0
    s1: int = 0
    s2: int = 0


@dataclass(frozen=True)
class Instruction:
    """One instruction; `loc` indexes the image's source locations."""

    name: str
    fields: dict[str, object] = field(default_factory=dict)
    loc: int = 0


def encode(instructions: Iterable[Instruction]) -> np.ndarray:
    """The text of a program, uint64 [words]. Raises EncodingError naming instruction and field."""
    words: list[int] = []
    for index, instruction in enumerate(instructions):
        try:
            words += encode_one(instruction)
        except EncodingError as error:
            raise EncodingError(f"instruction {index} ({instruction.name}): {error}") from None
    return np.array(words, dtype=np.uint64)


def decode(words: Sequence[int] | np.ndarray) -> list[Instruction]:
    """The instructions of a text. Raises EncodingError naming the word."""
    stream = [int(w) for w in words]
    instructions: list[Instruction] = []
    at = 0
    while at < len(stream):
        try:
            count = stream[at] >> 8 & 0xFF
            if not 0 < count <= len(stream) - at:
                raise EncodingError(f"claims {count} words, {len(stream) - at} are left")
            instructions.append(_decode_one(stream[at : at + count]))
        except EncodingError as error:
            raise EncodingError(f"word {at}: {error}") from None
        at += count
    return instructions


def encode_one(instruction: Instruction) -> list[int]:
    """The words of one instruction. Raises EncodingError naming the field."""
    spec = ISA.by_name.get(instruction.name)
    if spec is None:
        raise EncodingError("no such instruction")
    if set(instruction.fields) != set(spec.by_name):
        missing = sorted(set(spec.by_name) - set(instruction.fields))
        extra = sorted(set(instruction.fields) - set(spec.by_name))
        raise EncodingError(f"missing fields {missing}, unknown fields {extra}")
    body: list[int] = []
    for f in spec.fields:
        try:
            body += _ENCODERS[f.kind](instruction.fields[f.name], f, _f32(f, instruction.fields))
        except EncodingError as error:
            raise EncodingError(f"{f.name}: {error}") from None
    _check_range(instruction.loc, 0, 1 << 32, "location")
    return [spec.opcode | len(body) + 1 << 8 | instruction.loc << 32, *body]


def _decode_one(words: list[int]) -> Instruction:
    spec = ISA.by_opcode.get(words[0] & 0xFF)
    if spec is None:
        raise EncodingError(f"opcode {words[0] & 0xFF} is no instruction")
    if words[0] >> 16 & 0xFFFF:
        raise EncodingError(f"{spec.name}: reserved bits are not 0")
    reader = _Reader(words)
    raw = {f.name: _DECODERS[f.kind](reader, f) for f in spec.fields}
    if reader.at != len(words):
        raise EncodingError(f"{spec.name}: claims {len(words)} words, its fields take {reader.at}")
    fields = {f.name: _named_imm(raw[f.name], f, _f32(f, raw)) for f in spec.fields}
    return Instruction(spec.name, fields, words[0] >> 32)


def _f32(f: Field, fields: dict[str, object]) -> bool:
    return bool(fields[f.f32]) if isinstance(f.f32, str) else f.f32


# ---- to words


def _encode_imm(value: object, f: Field, is_f32: bool) -> list[int]:
    if f.enum is not None:
        allowed = f.only or ISA.enums[f.enum]
        if value not in allowed:
            raise EncodingError(f"{value!r} is not one of {', '.join(allowed)}")
        return [ISA.enums[f.enum].index(value)]
    if is_f32:
        return [_f32_bits(value)]
    return [_word(value)]


def _encode_reg(value: object, f: Field, is_f32: bool) -> list[int]:
    return [_check_range(value, 0, ISA.registers, "register")]


def _encode_value(value: object, f: Field, is_f32: bool) -> list[int]:
    value = Affine(value) if isinstance(value, int) else value
    if not isinstance(value, Affine):
        raise EncodingError(f"{value!r} is no affine value")
    if len(value.terms) > MAX_TERMS:
        raise EncodingError(f"{len(value.terms)} terms, at most {MAX_TERMS} fit")
    head = len(value.terms)
    for i, (reg, _) in enumerate(value.terms):
        head |= _check_range(reg, 0, ISA.registers, "register") << 8 * (i + 1)
    return [_word(value.imm), head, *(_word(coef) for _, coef in value.terms)]


def _encode_tile(value: object, f: Field, is_f32: bool) -> list[int]:
    if not isinstance(value, TileOperand):
        raise EncodingError(f"{value!r} is no tile")
    strides = [_word(s) for s in (value.s0, value.s1, value.s2)]
    return [
        *_encode_imm(value.space, _SPACE, False),
        *_encode_imm(value.dtype, _DTYPE, False),
        *_encode_value(value.addr, f, False),
        *strides,
    ]


_SPACE = Field("space", "imm", enum="space")
_DTYPE = Field("dtype", "imm", enum="dtype")
_ENCODERS = {"imm": _encode_imm, "reg": _encode_reg, "value": _encode_value, "tile": _encode_tile}


def _word(value: object) -> int:
    return _check_range(value, -(1 << 63), 1 << 63, "a 64-bit integer") & _MASK


def _check_range(value: object, low: int, high: int, what: str) -> int:
    if not isinstance(value, int) or not low <= value < high:
        raise EncodingError(f"{value!r} is out of range for {what}")
    return int(value)


def _f32_bits(value: object) -> int:
    if not isinstance(value, int | float):
        raise EncodingError(f"{value!r} is no number")
    return int(np.float32(value).view(np.uint32)) if value == value else _NAN_BITS


# ---- from words


class _Reader:
    """The words of one instruction, after the first."""

    def __init__(self, words: list[int]):
        self.words = words
        self.at = 1

    def word(self) -> int:
        if self.at == len(self.words):
            raise EncodingError("ends within a field")
        self.at += 1
        return self.words[self.at - 1]

    def signed(self) -> int:
        value = self.word()
        return value - (1 << 64) if value >> 63 else value


def _decode_reg(reader: _Reader, f: Field) -> int:
    return _check_range(reader.word(), 0, ISA.registers, f"{f.name}, a register")


def _decode_value(reader: _Reader, f: Field) -> Affine:
    imm, head = reader.signed(), reader.word()
    count = head & 0xFF
    if count > MAX_TERMS or head >> 8 * (count + 1):
        raise EncodingError(f"{f.name}: malformed register list {head:#x}")
    regs = [head >> 8 * (i + 1) & 0xFF for i in range(count)]
    return Affine(imm, tuple((reg, reader.signed()) for reg in regs))


def _decode_tile(reader: _Reader, f: Field) -> TileOperand:
    space = _named_imm(reader.signed(), _SPACE, False)
    dtype = _named_imm(reader.signed(), _DTYPE, False)
    addr = _decode_value(reader, f)
    return TileOperand(space, dtype, addr, reader.signed(), reader.signed(), reader.signed())


_DECODERS = {
    "imm": lambda reader, f: reader.signed(),
    "reg": _decode_reg,
    "value": _decode_value,
    "tile": _decode_tile,
}


def _named_imm(value: object, f: Field, is_f32: bool) -> object:
    """An imm as the compiler writes it: the enum's name, the float."""
    if f.kind != "imm":
        return value
    if f.enum is not None:
        names = ISA.enums[f.enum]
        if not 0 <= value < len(names) or (f.only and names[value] not in f.only):
            raise EncodingError(f"{f.name}: {value} is no {f.enum} it can take")
        return names[value]
    if not is_f32:
        return value
    (number,) = struct.unpack("<f", struct.pack("<I", value & 0xFFFFFFFF))
    if value >> 32 or (number != number and value != _NAN_BITS):
        raise EncodingError(f"{f.name}: {value:#x} is no canonical f32")
    return number
