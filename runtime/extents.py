"""Extents in symbols, as a compiled model states them: `B + 1`, `1152*T + 64`.

The runtime's own small reader of such polynomials: it evaluates them, and binds symbols by
the sizes of the inputs.
"""

import ast
import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

Monomial = tuple[str, ...]


class Extent:
    """A polynomial in symbols with integer coefficients."""

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms = {m: c for m, c in terms.items() if c}

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(text: "str | int") -> "Extent":
        """Raises ValueError unless `text` is built of integers, names, `+`, `-`, `*` and `**`."""
        try:
            return _build(ast.parse(str(text).strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} is not a polynomial in symbols") from error

    @property
    def symbols(self) -> set[str]:
        return {name for monomial in self.terms for name in monomial}

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The value where every symbol has one; KeyError names one that has not."""
        return sum(c * math.prod(values[name] for name in m) for m, c in self.terms.items())

    def solve(self, size: int, values: Mapping[str, int]) -> tuple[str, int] | None:
        """The symbol without a value and what it must be for the extent to be `size`.

        None when no symbol, or more than one, is without a value, or it does not occur linearly.
        ValueError when no integer fits.
        """
        unknown = self.symbols - values.keys()
        if len(unknown) != 1:
            return None
        (name,) = unknown
        if any(m.count(name) > 1 for m in self.terms):
            return None
        at = [self.evaluate({**values, name: x}) for x in (0, 1)]
        value, rest = divmod(size - at[0], at[1] - at[0]) if at[0] != at[1] else (0, 1)
        if rest:
            raise ValueError(f"no integer {name} makes it {size}")
        return name, value


def _build(node: ast.expr) -> Extent:
    match node:
        case ast.Constant(value=int(value)):
            return Extent({(): int(value)})
        case ast.Name(id=name):
            return Extent({(name,): 1})
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _product(Extent({(): -1}), _build(operand))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum(_build(left), _build(right))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _sum(_build(left), _product(Extent({(): -1}), _build(right)))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _product(_build(left), _build(right))
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 0 <= power <= 8:
            out = Extent({(): 1})
            for _ in range(power):
                out = _product(out, _build(left))
            return out
    raise ValueError("unknown expression")


def _sum(a: Extent, b: Extent) -> Extent:
    terms = Counter(a.terms)
    for monomial, c in b.terms.items():
        terms[monomial] += c
    return Extent(terms)


def _product(a: Extent, b: Extent) -> Extent:
    terms: Counter[Monomial] = Counter()
    for m1, c1 in a.terms.items():
        for m2, c2 in b.terms.items():
            terms[tuple(sorted(m1 + m2))] += c1 * c2
    return Extent(terms)
