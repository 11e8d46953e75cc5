"""Sequencer arithmetic: Python expressions that become `arith` ops on i64.

An `Index` is a Python int (known now) or an `I64` (known at run time). Operators fold what
is known, so a kernel written for symbolic extents costs nothing where they are static.
Operands are taken to be non-negative wherever `//`, `%` and `ceildiv` occur.
"""

from dataclasses import dataclass
from typing import Union

from torch_mlir import ir
from torch_mlir.dialects import arith

Index = Union[int, "I64"]


@dataclass(frozen=True, eq=False)
class I64:
    """An i64 SSA value with operators; ops are made at the current insertion point."""

    value: ir.Value

    def __add__(self, other: Index) -> Index:
        return self if _is(other, 0) else _emit(arith.addi, self, other)

    def __sub__(self, other: Index) -> Index:
        return self if _is(other, 0) else _emit(arith.subi, self, other)

    def __rsub__(self, other: Index) -> Index:
        return _emit(arith.subi, other, self)

    def __mul__(self, other: Index) -> Index:
        if _is(other, 0):
            return 0
        return self if _is(other, 1) else _emit(arith.muli, self, other)

    def __floordiv__(self, other: Index) -> Index:
        return self if _is(other, 1) else _emit(arith.floordivsi, self, other)

    def __rfloordiv__(self, other: Index) -> Index:
        return _emit(arith.floordivsi, other, self)

    def __mod__(self, other: Index) -> Index:
        return 0 if _is(other, 1) else _emit(arith.remsi, self, other)

    __radd__ = __add__
    __rmul__ = __mul__


def ceildiv(a: Index, b: Index) -> Index:
    """a / b rounded up; b > 0."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    return a if _is(b, 1) else _emit(arith.ceildivsi, a, b)


def minimum(a: Index, b: Index) -> Index:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    return _emit(arith.minsi, a, b)


def maximum(a: Index, b: Index) -> Index:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return _emit(arith.maxsi, a, b)


def compare(a: Index, relation: str, b: Index) -> ir.Value:
    """The i1 value of `a relation b`; relation is slt, sle, eq, ne, sgt or sge."""
    return arith.cmpi(getattr(arith.CmpIPredicate, relation), ssa(a), ssa(b))


def ssa(x: Index) -> ir.Value:
    """The SSA value of an Index; an int becomes an `arith.constant`."""
    if isinstance(x, I64):
        return x.value
    return arith.constant(ir.IntegerType.get_signless(64), int(x))


def _is(x: Index, constant: int) -> bool:
    return isinstance(x, int) and x == constant


def _emit(op, a: Index, b: Index) -> I64:
    return I64(op(ssa(a), ssa(b)))
