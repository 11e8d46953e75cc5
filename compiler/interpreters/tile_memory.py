"""The memories of a chip as byte arrays: launch buffers in HBM, tiles in scratchpad and accumulator."""

from dataclasses import dataclass

import numpy as np
from opennpu.compiler.interpreters.tile_elements import DTYPES, narrow, wide

GAP = 4096  # bytes between launch buffers, so that stray accesses are seen
GARBAGE = 0xAB
NOBODY = 0  # cores count from 1 in the maps of who wrote what
CODES = {dtype: code for code, dtype in enumerate(DTYPES, start=1)}
"""Of dtypes in the maps of what was written; 0: nothing was."""


class TileFault(RuntimeError):
    """What a program does that the instruction set forbids."""


def view(memory: np.ndarray, address: int, dims, strides, dtype=np.uint8) -> np.ndarray:
    """Elements of a byte array where they lie, none where an extent is 0 or less.

    Raises TileFault where one lies outside, or not at a multiple of its size.
    """
    dtype = np.dtype(dtype)
    dims = [max(0, n) for n in dims]
    if 0 in dims:
        return np.empty(dims, dtype)
    if any(n % dtype.itemsize for n in (address, *strides)):
        raise TileFault(f"address {address}, strides {list(strides)} are no multiples of {dtype.itemsize}")
    reach = [(n - 1) * s for n, s in zip(dims, strides, strict=True)]
    low = address + sum(min(r, 0) for r in reach)
    high = address + sum(max(r, 0) for r in reach) + dtype.itemsize
    if low < 0 or high > memory.nbytes:
        raise TileFault(f"bytes [{low}, {high}) are outside of [0, {memory.nbytes})")
    return np.ndarray(dims, dtype, memory.data, address, tuple(strides))


@dataclass
class Buffer:
    """A launch buffer, which core wrote a byte of it in the kernel that runs, and of what dtype a byte is."""

    address: int
    memory: np.ndarray
    owner: np.ndarray | None  # None: it must not be written
    codes: np.ndarray | None

    @property
    def end(self) -> int:
        return self.address + self.memory.nbytes


class Hbm:
    """The buffers of a launch, each at an address of its own."""

    def __init__(self):
        self.buffers: list[Buffer] = []

    def add(self, memory: np.ndarray, writable: bool) -> int:
        """The address of a buffer, whose bytes (uint8) stay where they are."""
        top = self.buffers[-1].end if self.buffers else 0
        address = -(-top // GAP) * GAP + GAP
        maps = [np.zeros(memory.nbytes, np.uint8) if writable else None for _ in range(2)]
        self.buffers.append(Buffer(address, memory, *maps))
        return address

    def begin_kernel(self) -> None:
        """After a barrier all cores see what was written."""
        for buffer in self.buffers:
            if buffer.owner is not None:
                buffer.owner.fill(NOBODY)

    def read(self, address: int, dims, strides) -> np.ndarray:
        """Runs of bytes; a kernel must not read what it writes."""
        buffer = self._at(address, dims, strides)
        if buffer is None:
            return np.empty([max(0, n) for n in dims], np.uint8)
        at = address - buffer.address
        if buffer.owner is not None and view(buffer.owner, at, dims, strides).any():
            raise TileFault(f"reads bytes from {address} that the same kernel has written")
        return view(buffer.memory, at, dims, strides)

    def write(
        self, address: int, strides, data: np.ndarray, core: int, dtype: str, shared: bool = False
    ) -> None:
        """Runs of bytes, elements of `dtype`; only with `shared` may two cores write one byte in a kernel."""
        buffer = self._at(address, data.shape, strides)
        if buffer is None:
            return
        if buffer.owner is None:
            raise TileFault(f"writes to {address}, in a buffer that is only read")
        at = address - buffer.address
        owners = view(buffer.owner, at, data.shape, strides)
        if not shared and ((owners != NOBODY) & (owners != core + 1)).any():
            raise TileFault(f"writes bytes from {address} that another core has written in the same kernel")
        owners[...] = core + 1
        view(buffer.codes, at, data.shape, strides)[...] = CODES[dtype]
        view(buffer.memory, at, data.shape, strides)[...] = data

    def integers(self, address: int, count: int, dtype: str) -> np.ndarray:
        size = DTYPES[dtype].itemsize
        raw = self.read(address, (max(count, 0) * size,), (1,))
        return np.frombuffer(raw.tobytes(), DTYPES[dtype]).astype(np.int64)

    def _at(self, address: int, dims, strides) -> Buffer | None:
        """The buffer that holds all bytes from the lowest to the highest; None for no bytes."""
        if any(n <= 0 for n in dims):
            return None
        reach = [(n - 1) * s for n, s in zip(dims, strides, strict=True)]
        low = address + sum(min(r, 0) for r in reach)
        high = address + sum(max(r, 0) for r in reach) + 1
        for buffer in self.buffers:
            if buffer.address <= low and high <= buffer.end:
                return buffer
        raise TileFault(f"bytes [{low}, {high}) are in no launch buffer")


@dataclass(frozen=True)
class Operand:
    """A buffer of a core and a place in it; a tile has strides."""

    memory: np.ndarray
    offset: int
    dtype: str
    strides: tuple[int, int, int] = (0, 0, 0)

    def bytes(self, dims, strides) -> np.ndarray:
        return view(self.memory, self.offset, dims, strides)

    def raw(self, dims, strides=None) -> np.ndarray:
        """The elements where they lie."""
        return view(self.memory, self.offset, dims, strides or self.strides, DTYPES[self.dtype])

    def load(self, dims, strides=None) -> np.ndarray:
        """As an operation sees them: float64 or int64."""
        return wide(self.raw(dims, strides), self.dtype)

    def store(self, values: np.ndarray, strides=None) -> None:
        """What an operation gives, cast to the operand's dtype."""
        self.put(narrow(values, self.dtype), strides)

    def put(self, raw: np.ndarray, strides=None) -> None:
        """Elements of the operand's dtype. A stride of 0 under a count above 1 has no defined result."""
        strides = strides or self.strides
        if any(n > 1 and s == 0 for n, s in zip(raw.shape, strides, strict=True)) and raw.size:
            raise TileFault(f"writes {list(raw.shape)} elements with strides {list(strides)}")
        self.raw(raw.shape, strides)[...] = raw
