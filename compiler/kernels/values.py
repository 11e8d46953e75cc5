"""What an `npu` tensor is at tile level: a strided window on a buffer in HBM."""

from dataclasses import dataclass, replace
from math import prod

from opennpu.dialects.symbols import Dim, Sym, dim, dims_of, num_elements
from torch_mlir import ir

DTYPES = {
    "f32": ("f32", 4),
    "bf16": ("bf16", 2),
    "i64": ("i64", 8),
    "i32": ("i32", 4),
    "i8": ("i8", 1),
    "i1": ("bool", 1),
}
"""MLIR element type → the instruction set's dtype and its bytes."""

ITEMSIZE = dict(DTYPES.values())
ELEMENT = {dtype: element for element, (dtype, _) in DTYPES.items()}


@dataclass(frozen=True)
class ArgBase:
    """A buffer that is a launch argument: an input, an output."""

    index: int


@dataclass(frozen=True)
class SlotBase:
    """A slot of the workspace, `offset` bytes (a multiple of 64) from its start."""

    offset: Dim


@dataclass(frozen=True)
class WeightBase:
    """An entry of the weight segment, `offset` bytes from its start."""

    offset: int


@dataclass(frozen=True)
class RolledWeightBase:
    """One of the entries that a table of i64 offsets lists; `layer` (an i64) picks it.

    `table` is the byte offset of the table in the weight segment.
    """

    table: int
    layer: ir.Value


Base = ArgBase | SlotBase | WeightBase | RolledWeightBase


@dataclass(frozen=True)
class View:
    """Element (i0, i1, …) lies at base + itemsize · (offset + Σ i·stride).

    `dims`, `strides` and `offset` count elements; a stride of 0 repeats.
    """

    base: Base
    dims: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    dtype: str
    offset: Dim = 0

    @staticmethod
    def contiguous(base: Base, dims: tuple[Dim, ...], dtype: str) -> "View":
        return View(base, tuple(dims), row_major(dims), dtype)

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def is_contiguous(self) -> bool:
        """Row-major without gaps (any offset)."""
        return all(
            d == 1 or s == r for d, s, r in zip(self.dims, self.strides, row_major(self.dims), strict=True)
        )

    @property
    def elements(self) -> Dim:
        return num_elements(self.dims)

    def with_dims(self, dims: tuple[Dim, ...]) -> "View":
        """The same elements as a row-major tensor of other extents; only for a contiguous view."""
        assert self.is_contiguous
        return replace(self, dims=tuple(dims), strides=row_major(dims))

    def rows(self) -> "View":
        """A contiguous view as a matrix [all leading dimensions][last]."""
        return self.with_dims((num_elements(self.dims[:-1]), self.dims[-1] if self.dims else 1))


def row_major(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The strides, in elements, of a row-major tensor."""
    return tuple(dim(prod(map(Sym.of, dims[i + 1 :]), start=Sym.of(1))) for i in range(len(dims)))


def dtype_of(type_: ir.Type) -> str:
    """The instruction set's name of a tensor's element type."""
    return DTYPES[str(ir.ShapedType(type_).element_type)][0]


def dims_and_dtype(value: ir.Value) -> tuple[tuple[Dim, ...], str]:
    return dims_of(value.type), dtype_of(value.type)
