"""Numbers, lists and extents: evaluated while converting, symbolically where they depend on extents."""

from typing import Any

from opennpu.compiler.conversions.table import Unsupported, converts, normal_dim, rank
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim, Sym, dim, exact_div, num_elements


@converts("aten.size.int", "aten.sym_size.int")
def size(x, axis):
    return npu.dims(x)[normal_dim(axis, rank(x))]


@converts("aten.size")
def sizes(x):
    return list(npu.dims(x))


@converts("aten.numel", "aten.sym_numel")
def numel(x):
    return num_elements(npu.dims(x))


@converts("aten.dim")
def ndim(x):
    return rank(x)


@converts("aten.add.int", "aten.add", "aten.add.float")
def add(a, b):
    return simplify(a + b)


@converts("aten.sub.int", "aten.sub", "aten.sub.float")
def sub(a, b):
    return simplify(a - b)


@converts("aten.mul.int", "aten.mul", "aten.mul.float")
def mul(a, b):
    return simplify(a * b)


@converts("aten.neg.int")
def neg(a):
    return simplify(-a)


@converts("aten.floordiv.int", "aten.floordiv")
def floordiv(a, b):
    if isinstance(a, Sym) or isinstance(b, Sym):
        return exact_div(a, b)
    return a // b


@converts("aten.remainder.int")
def remainder(a, b):
    try:
        exact_div(a, b)
        return 0
    except ValueError:
        if isinstance(a, Sym) or isinstance(b, Sym):
            raise Unsupported(f"{a} modulo {b} is no polynomial of the input's extents") from None
        return a % b


@converts("prim.ListConstruct", "prim.TupleConstruct")
def construct(*elements):
    return [list(elements)]


@converts("prim.ListUnpack", "prim.TupleUnpack")
def unpack(elements):
    return list(elements)


@converts("aten.__getitem__.t")
def getitem(elements, index):
    return elements[index]


@converts("aten.Float.Scalar")
def to_float(value):
    return float(value) if isinstance(value, int) else value


@converts("aten.Int.Scalar", "aten.Int.bool")
def to_int(value):
    return value if isinstance(value, Sym) else int(value)


def simplify(value: Any) -> Dim | float:
    """A symbolic value without symbols as an int."""
    return dim(value) if isinstance(value, Sym) else value
