"""The table from the names of torch operators to the functions that build them in `npu`.

A function gets its operator's arguments as Python values, in the order of the operator's
schema: a tensor as an `ir.Value` of the new function, a list as a list, int, float, bool,
None, str as such; an integer that depends on extents is a `Sym`. It returns one value, or a
list of them, tensors or not, and raises Unsupported for arguments that it cannot convert.
A parameter `result` receives the types of the operator's results (`Result`).
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim
from torch_mlir import ir

Scalar = int | float | bool


@dataclass(frozen=True)
class Result:
    """What the program says about a result: dtype, and extents with None for dynamic ones."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Conversion:
    """One entry of the table."""

    build: Callable[..., Any]
    wants_result: bool


CONVERSIONS: dict[str, Conversion] = {}


class Unsupported(Exception):
    """The operator is known, these arguments of it are not; the text says which."""


def converts(*names: str, **fixed: Any) -> Callable[[Callable], Callable]:
    """Registers a function for operators such as `aten.add.Tensor`; `fixed` goes to it by keyword."""

    def register(build: Callable) -> Callable:
        wants_result = "result" in inspect.signature(build).parameters
        for name in names:
            assert name not in CONVERSIONS, f"{name} is converted twice"
            entry = (lambda *a, **k: build(*a, **fixed, **k)) if fixed else build
            CONVERSIONS[name] = Conversion(entry, wants_result)
        return build

    return register


# ---- what conversions share


def rank(x: ir.Value) -> int:
    return len(npu.dims(x))


def normal_dim(dim: int, ndim: int) -> int:
    """The dimension counted from the front."""
    return dim + ndim if dim < 0 else dim


def static(value: Dim, what: str) -> int:
    """The value as an int; Unsupported where it depends on a symbol."""
    if not isinstance(value, int):
        raise Unsupported(f"{what} {value} depends on the input's extents")
    return value


def is_tensor(x: Any) -> bool:
    return isinstance(x, ir.Value)


def is_float(element: str) -> bool:
    return element in npu.FLOATS


CATEGORIES = (("i1",), ("i8", "i32", "i64"), ("bf16", "f32"))
WIDTHS = [element for elements in CATEGORIES for element in elements]
"""The dtypes from narrow to wide."""


def category(element: str) -> int:
    """0 bool, 1 integer, 2 float."""
    return next(i for i, names in enumerate(CATEGORIES) if element in names)


def number_dtype(x: Scalar) -> str:
    """The dtype of a Python number where it decides."""
    return "i1" if isinstance(x, bool) else "f32" if isinstance(x, float) else "i64"


def promote(*operands: ir.Value | Scalar) -> str:
    """PyTorch's result type: tensors with dimensions decide, unless a 0-d tensor or a Python
    number is of a higher category (bool, integer, float)."""
    decided = None
    for group in (
        [npu.dtype(x) for x in operands if is_tensor(x) and rank(x) > 0],
        [npu.dtype(x) for x in operands if is_tensor(x) and rank(x) == 0],
        [number_dtype(x) for x in operands if not is_tensor(x)],
    ):
        if group:
            widest = max(group, key=WIDTHS.index)
            if decided is None or category(widest) > category(decided):
                decided = widest
    assert decided is not None, "no operands"
    return decided


def as_tensor(x: ir.Value | Scalar, element: str) -> ir.Value:
    """The operand in this dtype; a number becomes a tensor without dimensions."""
    if is_tensor(x):
        return npu.cast(x, element)
    return npu.constant(x, [], element) if isinstance(x, Scalar) else npu.extent(x, element)


def promoted(*operands: ir.Value | Scalar) -> list[ir.Value]:
    """The operands as tensors of their common dtype."""
    element = promote(*operands)
    return [as_tensor(x, element) for x in operands]


def as_float(x: ir.Value) -> ir.Value:
    """x, integers and bools as f32."""
    return x if is_float(npu.dtype(x)) else npu.cast(x, "f32")


def to_last(x: ir.Value, dim: int) -> tuple[ir.Value, list[int]]:
    """x with the dimension moved to the end, and the permutation that moves it back."""
    ndim = rank(x)
    perm = [*(i for i in range(ndim) if i != dim), dim]
    return npu.transpose(x, perm), inverse(perm)


def inverse(perm: Sequence[int]) -> list[int]:
    return [list(perm).index(i) for i in range(len(perm))]


def index_tensor(index: ir.Value) -> ir.Value:
    """An index as a tensor of integers; Unsupported for a mask."""
    if npu.dtype(index) == "i1":
        raise Unsupported("an index is a mask; the number of selected elements would depend on data")
    return index
