"""What an `npu` tensor is at tile level: a strided window on a buffer in HBM."""

from collections.abc import Sequence
from dataclasses import dataclass

from opennpu.compiler.kernels.scalars import I64, Index
from opennpu.compiler.kernels.views import Strided, is_contiguous, row_major
from opennpu.dialects.isa.table import DTYPE_BYTES, ISA
from opennpu.dialects.symbols import Dim, Sym, dim, dims_of, num_elements
from torch_mlir import ir

ELEMENT = {dtype: "i1" if dtype == "bool" else dtype for dtype in ISA.enums["dtype"]}
"""The instruction set's dtype → MLIR's element type."""

DTYPES = {element: dtype for dtype, element in ELEMENT.items()}
ITEMSIZE = DTYPE_BYTES


@dataclass(frozen=True)
class ArgBase:
    """A buffer that is a launch argument: `input:NAME`, `output:NAME`."""

    key: str


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
    """Entry `layer` (an i64) of those that lie `step` bytes apart, the first at `offset`."""

    offset: int
    step: int
    layer: I64


@dataclass(frozen=True)
class TableWeightBase:
    """One of the entries that a table of i64 offsets lists; `layer` (an i64) picks it.

    `table` is the byte offset of the table in the weight segment.
    """

    table: int
    layer: I64


@dataclass(frozen=True)
class RowBase:
    """Row `row` (an i64 or a number) of `bytes` bytes each, of the launch argument `key`."""

    key: str
    bytes: Dim
    row: Index


Base = ArgBase | SlotBase | WeightBase | RolledWeightBase | TableWeightBase | RowBase


@dataclass(frozen=True, kw_only=True)
class View(Strided):
    """Element (i0, i1, …) lies at base + itemsize · (offset + Σ i·stride).

    `shape`, `strides` and `offset` count elements; a stride of 0 repeats.
    """

    base: Base
    dtype: str

    @staticmethod
    def contiguous(base: Base, shape: Sequence[Dim], dtype: str) -> "View":
        return View(tuple(shape), row_major(shape), base=base, dtype=dtype)

    @property
    def itemsize(self) -> int:
        return ITEMSIZE[self.dtype]

    @property
    def is_contiguous(self) -> bool:
        """Row-major without gaps (any offset)."""
        return is_contiguous(self)

    @property
    def bytes(self) -> Dim:
        """Of all its elements."""
        return dim(Sym.of(num_elements(self.shape)) * self.itemsize)


def view_type(value: ir.Value) -> tuple[tuple[Dim, ...], str]:
    """Extents and dtype of an `npu` tensor."""
    element_type = str(ir.ShapedType(value.type).element_type)
    return dims_of(value.type), DTYPES[element_type]
