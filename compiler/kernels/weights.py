"""The weight segment: which parameters lie where, and how they are packed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from opennpu.compiler.kernels.values import ITEMSIZE
from opennpu.runtime.chip import Chip

ALIGN = 64


@dataclass(frozen=True)
class Packing:
    """Layout `packed` of a matrix y = x·Wᵀ, W [N][K]: matrix-unit tiles in the order they are read.

    Column tiles lie `column` elements apart, and in each the k tiles `block`; the last one of a
    column is as short as K makes it. `transpose`: the parameter is [K][N].
    `gate`: of a column tile one half is of the first N/2 columns, the other of the second.
    `groups`: how many such matrices a parameter of three dimensions holds, one behind the other.
    """

    n: int
    k: int
    nt: int
    kt: int
    pair: int
    transpose: bool = False
    gate: bool = False
    groups: int = 1

    @property
    def tiles(self) -> int:
        """Column tiles."""
        halves = 2 if self.gate else 1
        return -(-(self.n // halves) // (self.nt // halves))

    @property
    def k_tiles(self) -> int:
        return -(-self.k // self.kt)

    @property
    def block(self) -> int:
        return self.kt * self.nt

    @property
    def column(self) -> int:
        return -(-self.k // self.pair) * self.pair * self.nt

    @property
    def matrix(self) -> int:
        return self.tiles * self.column

    @property
    def elements(self) -> int:
        return self.groups * self.matrix


@dataclass
class WeightSegment:
    """Hands out offsets in the segment; the same use of a parameter has one entry.

    `entries` is the list `weights` of the signature (docs/architecture.md).
    """

    chip: Chip
    entries: list[dict] = field(default_factory=list)
    bytes: int = 0
    _offsets: dict[tuple, int] = field(default_factory=dict)

    def rows(self, name: str, dtype: str, shape: Sequence[int]) -> int:
        """The byte offset of a parameter as it is."""
        entry = {"names": [name], "layout": "rows", "dtype": dtype, "shape": list(shape)}
        return self._entry((name, "rows"), prod(shape) * ITEMSIZE[dtype], entry)

    def packed(self, name: str, dtype: str, shape: Sequence[int], packing: Packing) -> int:
        """The byte offset of a parameter as matrix-unit tiles."""
        flags = {"nt": packing.nt, "transpose": packing.transpose, "gate": packing.gate}
        entry = {"names": [name], "layout": "packed", "dtype": dtype, "shape": list(shape), **flags}
        return self._entry((name, packing), packing.elements * ITEMSIZE[dtype], entry)

    def table(self, offsets: Sequence[int]) -> int:
        """The byte offset of a table of i64 offsets into the segment, one a layer."""
        entry = {"layout": "table", "dtype": "i64", "entries": list(offsets)}
        return self._entry(tuple(offsets), 8 * len(offsets), entry)

    def _entry(self, key: tuple, nbytes: int, entry: dict) -> int:
        if key not in self._offsets:
            self._offsets[key] = self.bytes
            self.entries.append({**entry, "offset": self.bytes, "bytes": nbytes})
            self.bytes += -(-nbytes // ALIGN) * ALIGN
        return self._offsets[key]
