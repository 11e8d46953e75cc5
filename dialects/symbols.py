"""Symbolic extents: polynomials in symbols with integer coefficients.

A dynamic extent of a tensor is a `Sym` (`T`, `B + 1`, `2*T`). A ranked tensor with a
dynamic dimension carries all its extents, as strings, as the encoding of its type:
`tensor<?x576xbf16, ["T", "576"]>`. A static tensor has no encoding.
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Union

from torch_mlir import ir

Dim = Union[int, "Sym"]
Ranges = Mapping[str, tuple[int, int | None]]
"""Inclusive range of each symbol; None as the upper bound means none."""

Monomial = tuple[str, ...]
"""Sorted names of the factors; a name appears once for each power."""


class Sym:
    """An immutable polynomial in symbols with integer coefficients.

    Prints canonically: higher degrees first, then by name (`B*T + 2*T - 1`), so that
    equal polynomials have equal text.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms: dict[Monomial, int] = {m: c for m, c in terms.items() if c}
        self._hash = hash(frozenset(self.terms.items()))

    @staticmethod
    def of(value: "Dim | str") -> "Sym":
        """The polynomial of an integer, a text such as `B + 1`, or a Sym."""
        if isinstance(value, Sym):
            return value
        if isinstance(value, str):
            return _parse(value)
        return Sym({(): int(value)})

    # ---- reading

    @property
    def names(self) -> frozenset[str]:
        """The symbols that occur."""
        return frozenset(name for monomial in self.terms for name in monomial)

    @property
    def constant(self) -> int | None:
        """Its value when no symbol occurs, else None."""
        return None if self.names else self.terms.get((), 0)

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The value at `values`; KeyError names a symbol without a value."""
        return sum(c * prod(values[name] for name in m) for m, c in self.terms.items())

    def substitute(self, values: Mapping[str, Dim]) -> "Sym":
        """The polynomial with the named symbols replaced."""
        total = Sym({})
        for monomial, c in self.terms.items():
            total += prod((Sym.of(values.get(n, Sym({(n,): 1}))) for n in monomial), start=Sym.of(c))
        return total

    def bounds(self, ranges: Ranges) -> tuple[int | None, int | None]:
        """Inclusive (lower, upper) bounds by interval arithmetic; None is no bound.

        Symbols without a range, and all symbols, are taken to be at least 0.
        """
        lower: int | None = 0
        upper: int | None = 0
        for monomial, c in self.terms.items():
            limits = [ranges.get(name, (0, None)) for name in monomial]
            least = prod(max(lo, 0) for lo, _ in limits)
            most = None if any(hi is None for _, hi in limits) else prod(hi for _, hi in limits)
            low, high = (least, most) if c > 0 else (most, least)
            lower = None if lower is None or low is None else lower + c * low
            upper = None if upper is None or high is None else upper + c * high
        return lower, upper

    def lower_bound(self, ranges: Ranges) -> int | None:
        return self.bounds(ranges)[0]

    def upper_bound(self, ranges: Ranges) -> int | None:
        return self.bounds(ranges)[1]

    # ---- arithmetic

    def __add__(self, other: Dim) -> "Sym":
        terms = dict(self.terms)
        for m, c in Sym.of(other).terms.items():
            terms[m] = terms.get(m, 0) + c
        return Sym(terms)

    def __neg__(self) -> "Sym":
        return Sym({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Dim) -> "Sym":
        return self + -Sym.of(other)

    def __rsub__(self, other: Dim) -> "Sym":
        return Sym.of(other) - self

    def __mul__(self, other: Dim) -> "Sym":
        terms: dict[Monomial, int] = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in Sym.of(other).terms.items():
                m = tuple(sorted(m1 + m2))
                terms[m] = terms.get(m, 0) + c1 * c2
        return Sym(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def exact_div(self, divisor: Dim) -> "Sym":
        """self / divisor by polynomial long division; ValueError when it leaves a rest."""
        by = Sym.of(divisor)
        if not by.terms:
            raise ValueError(f"{self} divided by 0")
        quotient, rest = Sym({}), self
        while rest.terms:
            factor = _leading_quotient(rest, by)
            if factor is None:
                raise ValueError(f"{self} is not divisible by {by}")
            quotient, rest = quotient + factor, rest - factor * by
        return quotient

    # ---- comparison and text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | Sym) and self.terms == Sym.of(other).terms

    def __hash__(self) -> int:
        constant = self.constant
        return self._hash if constant is None else hash(constant)

    def __str__(self) -> str:
        text = ""
        for monomial, c in sorted(self.terms.items(), key=lambda term: _order(term[0])):
            factors = ([] if abs(c) == 1 and monomial else [str(abs(c))]) + list(monomial)
            sign = (" - " if c < 0 else " + ") if text else ("-" if c < 0 else "")
            text += sign + "*".join(factors)
        return text or "0"

    def __repr__(self) -> str:
        return f"Sym({str(self)!r})"


def _order(monomial: Monomial) -> tuple:
    return (-len(monomial), monomial)


def _leading_quotient(rest: Sym, by: Sym) -> Sym | None:
    """The quotient of the leading terms, or None where they do not divide."""
    rest_lead, by_lead = min(rest.terms, key=_order), min(by.terms, key=_order)
    factors = list(rest_lead)
    for name in by_lead:
        if name not in factors:
            return None
        factors.remove(name)
    c, remainder = divmod(rest.terms[rest_lead], by.terms[by_lead])
    return None if remainder else Sym({tuple(factors): c})


@lru_cache(maxsize=4096)
def _parse(text: str) -> Sym:
    def visit(node: ast.expr) -> Sym:
        match node:
            case ast.Constant(value=int(value)):
                return Sym.of(value)
            case ast.Name(id=name):
                return Sym({(name,): 1})
            case ast.UnaryOp(op=ast.USub(), operand=x):
                return -visit(x)
            case ast.BinOp(left=a, op=ast.Add(), right=b):
                return visit(a) + visit(b)
            case ast.BinOp(left=a, op=ast.Sub(), right=b):
                return visit(a) - visit(b)
            case ast.BinOp(left=a, op=ast.Mult(), right=b):
                return visit(a) * visit(b)
            case ast.BinOp(left=a, op=ast.Pow(), right=ast.Constant(value=int(n))) if n >= 0:
                return prod([visit(a)] * n, start=Sym.of(1))
            case ast.BinOp(left=a, op=ast.FloorDiv() | ast.Div(), right=b):
                return visit(a).exact_div(visit(b))
        raise ValueError(f"{text!r} is not a polynomial in symbols with integer coefficients")

    try:
        return visit(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"{text!r} is not a polynomial in symbols with integer coefficients") from None


# ---- dimensions and types


def dim(value: Dim | str) -> Dim:
    """The extent as an int where it is constant, else as a Sym."""
    if isinstance(value, int):
        return value
    symbol = Sym.of(value)
    return symbol if symbol.constant is None else symbol.constant


def num_elements(dims: Iterable[Dim]) -> Dim:
    """The product of the extents."""
    return dim(prod(dims, start=Sym.of(1)))


def exact_div(a: Dim, b: Dim) -> Dim:
    """a / b; ValueError when it leaves a rest."""
    return dim(Sym.of(a).exact_div(b))


def dims_of(type_: ir.Type) -> tuple[Dim, ...]:
    """The extents of a ranked tensor type.

    ValueError when a dynamic dimension has no symbolic extent, or the encoding does not
    fit the shape.
    """
    tensor = ir.RankedTensorType(type_)
    encoding = tensor.encoding
    if encoding is None:
        if not tensor.has_static_shape:
            raise ValueError(f"{tensor} has a dynamic dimension without a symbolic extent")
        return tuple(tensor.shape)
    if not isinstance(encoding, ir.ArrayAttr) or len(encoding) != tensor.rank:
        raise ValueError(f"{tensor}: the encoding must be an array of {tensor.rank} extents")
    return tuple(_checked_dim(tensor, i, extent) for i, extent in enumerate(encoding))


def _checked_dim(tensor: ir.RankedTensorType, i: int, extent: ir.Attribute) -> Dim:
    if not isinstance(extent, ir.StringAttr):
        raise ValueError(f"{tensor}: extent {i} of the encoding must be a string")
    value = dim(extent.value)
    expected = None if tensor.is_dynamic_dim(i) else tensor.get_dim_size(i)
    if (None if isinstance(value, Sym) else value) != expected:
        raise ValueError(f"{tensor}: dimension {i} does not fit the extent {extent.value!r}")
    return value


def tensor_type(dims: Sequence[Dim], element: ir.Type) -> ir.RankedTensorType:
    """The ranked tensor type of these extents, with the encoding when one is symbolic."""
    extents = [dim(d) for d in dims]
    if all(isinstance(d, int) for d in extents):
        return ir.RankedTensorType.get(extents, element)
    encoding = ir.ArrayAttr.get([ir.StringAttr.get(str(d)) for d in extents])
    shape = [d if isinstance(d, int) else ir.ShapedType.get_dynamic_size() for d in extents]
    return ir.RankedTensorType.get(shape, element, encoding)


# ---- the module's table of symbols


def symbol_ranges(module: ir.Module) -> dict[str, tuple[int, int | None]]:
    """The inclusive range of each symbol, from the module attribute `npu.symbols`."""
    if "npu.symbols" not in module.operation.attributes:
        return {}
    ranges = {}
    for entry in ir.DictAttr(module.operation.attributes["npu.symbols"]):
        lower, upper = (ir.IntegerAttr(bound).value for bound in ir.ArrayAttr(entry.attr))
        ranges[entry.name] = (lower, None if upper == -1 else upper)
    return ranges


def set_symbol_ranges(module: ir.Module, ranges: Ranges) -> None:
    """Writes the module attribute `npu.symbols`."""
    i64 = ir.IntegerType.get_signless(64)
    module.operation.attributes["npu.symbols"] = ir.DictAttr.get(
        {
            name: ir.ArrayAttr.get(
                [ir.IntegerAttr.get(i64, lower), ir.IntegerAttr.get(i64, -1 if upper is None else upper)]
            )
            for name, (lower, upper) in ranges.items()
        }
    )
