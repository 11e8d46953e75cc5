"""One instruction as a line of assembly, and back.

    dma_load dst=spm[0x100 + 64*r3], src=hbm[r5 + 1152*r2], n0=1, …
    v_unary op=silu, dst=acc.f32[0x0; 0, 512, 4], a=spm.bf16[0x40 + r4; 0, 256, 2], d0=1, …
    loop rd=r4, lo=0, hi=r6, step=1

Addresses print in hexadecimal, a tile as space.dtype[address; s0, s1, s2]. Every line that
`print_instruction` makes parses to the same instruction.
"""

import re

import numpy as np
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.dialects.isa.table import ISA, Field

_FIELD = re.compile(r"\s*(\w+)\s*=\s*((?:[^,\[\]]|\[[^\]]*\])+?)\s*(?:,|$)")
_TERM = re.compile(r"([+-]?)(?:(0x[0-9a-f]+|\d+)\*)?(r\d+|0x[0-9a-f]+|\d+)")
_TILE = re.compile(r"(\w+)\.(\w+)\[([^;\]]*);([^;\]]*)\]")
_ADDRESS = re.compile(r"(\w+)\[([^\]]*)\]")


class SyntaxProblem(ValueError):
    """A line that is no instruction; says what is wrong with it."""


def print_instruction(instruction: Instruction) -> str:
    """The line of an instruction, without its location."""
    spec = ISA[instruction.name]
    fields = (f"{f.name}={_print_field(f, instruction.fields[f.name])}" for f in spec.fields)
    return f"{spec.name} {', '.join(fields)}".rstrip()


def parse_instruction(line: str, loc: int = 0) -> Instruction:
    """The instruction of a line. Raises SyntaxProblem; ranges are left to the encoder."""
    name, _, rest = line.strip().partition(" ")
    if name not in ISA.by_name:
        raise SyntaxProblem(f"no instruction is called {name!r}")
    spec = ISA[name]
    texts = _split_fields(rest)
    if list(texts) != [f.name for f in spec.fields]:
        expected = ", ".join(f.name for f in spec.fields) or "none"
        raise SyntaxProblem(f"{name} takes the fields {expected}, in this order; got {', '.join(texts)}")
    return Instruction(name, {f.name: _parse_field(f, texts[f.name]) for f in spec.fields}, loc)


def _split_fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _FIELD.match(text, at)
        if match is None:
            raise SyntaxProblem(f"expected field=value at {text[at:]!r}")
        if match[1] in fields:
            raise SyntaxProblem(f"{match[1]} is given twice")
        fields[match[1]] = match[2]
        at = match.end()
    return fields


# ---- printing


def _print_field(f: Field, value: object) -> str:
    match value:
        case TileOperand(space, dtype, addr, s0, s1, s2):
            return f"{space}.{dtype}[{_print_affine(addr, hex)}; {s0}, {s1}, {s2}]"
        case Affine() if f.space:
            return f"{f.space}[{_print_affine(value, hex)}]"
        case Affine():
            return _print_affine(value, str)
        case float():
            return str(np.float32(value))
    return f"r{value}" if f.kind == "reg" else str(value)


def _print_affine(value: Affine, number) -> str:
    parts = [(value.imm, "")] if value.imm or not value.terms else []
    parts += [(coef, f"r{reg}") for reg, coef in value.terms]
    text = ""
    for n, reg in parts:
        magnitude = number(abs(n)) if not reg else reg if abs(n) == 1 else f"{abs(n)}*{reg}"
        sign = ("-" if n < 0 else "") if not text else (" - " if n < 0 else " + ")
        text += sign + magnitude
    return text


# ---- parsing


def _parse_field(f: Field, text: str) -> object:
    return _PARSERS[f.kind](f, text)


def _parse_imm(f: Field, text: str) -> int | float | str:
    if f.enum is not None:
        return text
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise SyntaxProblem(f"{f.name}: {text!r} is no number") from None


def _parse_reg(f: Field, text: str) -> int:
    if not re.fullmatch(r"r\d+", text):
        raise SyntaxProblem(f"{f.name}: {text!r} is no register; write r and its number")
    return int(text[1:])


def _parse_value(f: Field, text: str) -> Affine:
    if f.space is None:
        return _parse_affine(f, text)
    match = _ADDRESS.fullmatch(text)
    if match is None or match[1] != f.space:
        raise SyntaxProblem(f"{f.name}: {text!r} is no address; write {f.space}[…]")
    return _parse_affine(f, match[2])


def _parse_tile(f: Field, text: str) -> TileOperand:
    match = _TILE.fullmatch(text)
    strides = match[4].split(",") if match else []
    if len(strides) != 3:
        raise SyntaxProblem(f"{f.name}: {text!r} is no tile; write space.dtype[address; s0, s1, s2]")
    return TileOperand(match[1], match[2], _parse_affine(f, match[3]), *(_integer(f, s) for s in strides))


def _parse_affine(f: Field, text: str) -> Affine:
    """[imm] {± [coef*]register}; the immediate comes first where there is one."""
    packed = text.replace(" ", "")
    matches = list(_TERM.finditer(packed))
    if not matches or "".join(m[0] for m in matches) != packed or not all(m[1] for m in matches[1:]):
        raise SyntaxProblem(f"{f.name}: {text!r} is no affine value; write e.g. 16 + 64*r3")
    imm, terms = 0, []
    for i, (sign, coef, atom) in enumerate(m.groups() for m in matches):
        factor = (-1 if sign == "-" else 1) * int(coef or "1", 0)
        if atom.startswith("r"):
            terms.append((int(atom[1:]), factor))
        elif i == 0 and coef is None:
            imm = factor * int(atom, 0)
        else:
            raise SyntaxProblem(f"{f.name}: the number in {text!r} must come first")
    return Affine(imm, tuple(terms))


def _integer(f: Field, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise SyntaxProblem(f"{f.name}: {text.strip()!r} is no integer") from None


_PARSERS = {"imm": _parse_imm, "reg": _parse_reg, "value": _parse_value, "tile": _parse_tile}
