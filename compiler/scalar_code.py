"""i64 SSA values to the sequencer's affine expressions and instructions.

A value that is linear in registers becomes an `Affine` and costs nothing where it is used: the
operands of instructions are affine. Everything else is computed into a register by `s_alu`
where it is defined. Registers are virtual here: 0 and 1 are the core's number and the number of
cores, the others are numbered as they come (`compiler/registers.py` makes them real).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from opennpu.compiler.tile_ir import integer
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.encoding import Affine, Instruction
from opennpu.dialects.isa.table import MAX_TERMS
from opennpu.dialects.locations import describe
from torch_mlir import ir
from torch_mlir.dialects import arith

CORE, CORES, FIRST_FREE = 0, 1, 2


@dataclass
class Code:
    """Instructions over virtual registers, each with the operation it comes from."""

    instructions: list[tuple[Instruction, ir.Location]] = field(default_factory=list)
    registers: int = FIRST_FREE

    def emit(self, name: str, fields: dict[str, object], loc: ir.Location) -> None:
        self.instructions.append((Instruction(name, fields), loc))

    def new_register(self) -> int:
        self.registers += 1
        return self.registers - 1

    def compute(self, name: str, fields: dict[str, object], loc: ir.Location) -> Affine:
        """Emits an instruction that writes a fresh register `rd`."""
        rd = self.new_register()
        self.emit(name, {**fields, "rd": rd}, loc)
        return Affine.reg(rd)

    def alu(self, op: str, a: Affine, b: Affine, loc: ir.Location) -> Affine:
        """a op b, folded where both are known."""
        if not a.terms and not b.terms and (folded := fold(op, a.imm, b.imm)) is not None:
            return Affine(folded)
        return self.compute("s_alu", {"op": op, "a": a, "b": b}, loc)

    def add(self, a: Affine, b: Affine, factor: int, loc: ir.Location) -> Affine:
        """a + factor·b; the longer operand is first computed into a register where terms run out."""
        total = _combine(a, b, factor)
        while len(total.terms) > MAX_TERMS:
            if len(a.terms) >= len(b.terms):
                a = self.compute("s_mov", {"a": a}, loc)
            else:
                b = self.compute("s_mov", {"a": b}, loc)
            total = _combine(a, b, factor)
        return total


class Scalars:
    """The expressions of the SSA values seen so far."""

    def __init__(self, code: Code):
        self.code = code
        self._values: dict[ir.Value, Affine] = {}

    def __getitem__(self, value: ir.Value) -> Affine:
        return self._values[value]

    def define(self, value: ir.Value, expression: Affine) -> None:
        self._values[value] = expression

    def lower(self, op: ir.Operation) -> bool:
        """Gives the op's result its expression; False if it is no scalar operation."""
        lowering = _LOWERINGS.get(op.name)
        if lowering is None:
            return False
        operands = [self._values[v] for v in op.operands]
        self.define(op.results[0], lowering(self.code, op, operands))
        return True


def fold(op: str, a: int, b: int) -> int | None:
    """a op b as the chip computes it on signed 64-bit integers; None where it would trap."""
    if op in ("div", "ceildiv", "mod") and b == 0:
        return None
    return _wrap(_FOLDS[op](a, b))


_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "shl": lambda a, b: a << (b & 63),
    "shr": lambda a, b: a >> (b & 63),
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
}


# ---- one operation each: (code, op, operands) → expression


def _constant(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    value = ir.IntegerAttr(op.attributes["value"])
    is_bool = ir.IntegerType(value.type).width == 1
    return Affine(value.value & 1 if is_bool else value.value)


def _mul(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    a, b = operands if not operands[1].terms else reversed(operands)
    return _scale(a, b.imm) if not b.terms else code.alu("mul", a, b, op.location)


def _shl(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    a, b = operands
    return _scale(a, 1 << (b.imm & 63)) if not b.terms else code.alu("shl", a, b, op.location)


def _floordiv(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    a, b = operands
    if not b.terms and b.imm > 0 and _divides(b.imm, a):
        return Affine(a.imm // b.imm, tuple((reg, coef // b.imm) for reg, coef in a.terms))
    return code.alu("div", a, b, op.location)


def _rem(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    a, b = operands
    if not b.terms and b.imm > 0 and _divides(b.imm, a):
        return Affine()
    return code.alu("mod", a, b, op.location)


def _cmp(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    predicate = ir.IntegerAttr(op.attributes["predicate"]).value
    if predicate not in _PREDICATES:
        raise _unsupported(op, "; compare signed")
    name, swapped = _PREDICATES[predicate]
    a, b = reversed(operands) if swapped else operands
    return code.alu(name, a, b, op.location)


def _select(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    """b + cond·(a - b)."""
    cond, a, b = operands
    difference = code.add(a, b, -1, op.location)
    if not difference.terms:
        return code.add(b, cond, difference.imm, op.location)
    return code.add(b, code.alu("mul", cond, difference, op.location), 1, op.location)


def _xor(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    """Only on i1: 1 where they differ."""
    if str(op.results[0].type) != "i1":
        raise _unsupported(op)
    return code.alu("ne", *operands, op.location)


def _arg(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    return code.compute("s_arg", {"index": integer(op, "index", None)}, op.location)


def _load(code: Code, op: ir.Operation, operands: list[Affine]) -> Affine:
    dtype = ir.StringAttr(op.attributes["dtype"]).value
    return code.compute("s_ld", {"dtype": dtype, "addr": operands[0]}, op.location)


def _alu(name: str) -> Callable[[Code, ir.Operation, list[Affine]], Affine]:
    return lambda code, op, operands: code.alu(name, *operands, op.location)


def _sum(factor: int) -> Callable[[Code, ir.Operation, list[Affine]], Affine]:
    return lambda code, op, operands: code.add(operands[0], operands[1], factor, op.location)


_PREDICATES = {
    int(arith.CmpIPredicate.eq): ("eq", False),
    int(arith.CmpIPredicate.ne): ("ne", False),
    int(arith.CmpIPredicate.slt): ("lt", False),
    int(arith.CmpIPredicate.sle): ("le", False),
    int(arith.CmpIPredicate.sgt): ("lt", True),
    int(arith.CmpIPredicate.sge): ("le", True),
}

_LOWERINGS: dict[str, Callable[[Code, ir.Operation, list[Affine]], Affine]] = {
    "arith.constant": _constant,
    "arith.addi": _sum(1),
    "arith.subi": _sum(-1),
    "arith.muli": _mul,
    "arith.shli": _shl,
    "arith.shrsi": _alu("shr"),
    "arith.floordivsi": _floordiv,
    "arith.ceildivsi": _alu("ceildiv"),
    "arith.remsi": _rem,
    "arith.minsi": _alu("min"),
    "arith.maxsi": _alu("max"),
    "arith.andi": _alu("and"),
    "arith.ori": _alu("or"),
    "arith.xori": _xor,
    "arith.cmpi": _cmp,
    "arith.extui": lambda code, op, operands: operands[0],
    "arith.select": _select,
    "npu_tile.core": lambda code, op, operands: Affine.reg(CORE),
    "npu_tile.cores": lambda code, op, operands: Affine.reg(CORES),
    "npu_tile.arg": _arg,
    "npu_tile.load_scalar": _load,
}


# ---- affine arithmetic, wrapping at 64 bits


def _combine(a: Affine, b: Affine, factor: int) -> Affine:
    coefs = dict(a.terms)
    for reg, coef in b.terms:
        coefs[reg] = _wrap(coefs.get(reg, 0) + factor * coef)
    terms = tuple((reg, coef) for reg, coef in coefs.items() if coef)
    return Affine(_wrap(a.imm + factor * b.imm), terms)


def _scale(a: Affine, factor: int) -> Affine:
    return _combine(Affine(), a, factor)


def _divides(divisor: int, a: Affine) -> bool:
    return all(n % divisor == 0 for n in (a.imm, *(coef for _, coef in a.terms)))


def _wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _unsupported(op: ir.Operation, hint: str = "") -> CompileError:
    return CompileError(Problem(f"{op.name} has no form on the sequencer{hint}", describe(op.location)))
