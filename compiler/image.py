"""The program image: what the driver loads. Its layout is in docs/architecture.md.

`parse_image(build_image(…))` gives the same program back; the runtime's loader in C++ is the
one that has to withstand hostile images.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.chip import Chip

MAGIC = b"ONPUPROG"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQIIQ")


class ArgKind(IntEnum):
    """What a launch argument is; the value of `arg_kinds` in the image."""

    SCALAR = 0
    READ = 1  # a buffer the program reads
    WRITE = 2  # a buffer the program writes, and may read


class ImageError(ValueError):
    """The bytes are no program image."""


@dataclass(frozen=True)
class Image:
    """A program: text uint64 [words], the kinds of its arguments, its source locations."""

    fingerprint: int
    arg_kinds: tuple[ArgKind, ...]
    text: np.ndarray
    locs: tuple[str, ...]


def build_image(chip: Chip, arg_kinds: list[int], text: np.ndarray, locs: list[str]) -> bytes:
    """The image of a program for `chip`; `text` is uint64 [words] from `encode`."""
    return pack_image(Image(chip.fingerprint, tuple(map(ArgKind, arg_kinds)), text, tuple(locs)))


def pack_image(image: Image) -> bytes:
    """The bytes of an image."""
    locs = [loc.encode() for loc in image.locs]
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        ISA.version,
        image.fingerprint,
        len(image.text),
        len(image.arg_kinds),
        len(locs),
        sum(map(len, locs)),
    )
    kinds = np.array(image.arg_kinds, dtype="<u4").tobytes()
    offsets = np.cumsum([0, *map(len, locs)], dtype="<u4").tobytes()
    padding = bytes(-(len(header) + len(kinds)) % 8)
    return b"".join([header, kinds, padding, image.text.astype("<u8").tobytes(), offsets, *locs])


def parse_image(data: bytes) -> Image:
    """The program in `data`. Raises ImageError."""
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise ImageError("not a program image: it does not start with ONPUPROG")
    _, version, isa, fingerprint, words, args, locs, loc_bytes = _HEADER.unpack_from(data)
    if (version, isa) != (VERSION, ISA.version):
        raise ImageError(f"image version {version}, instruction set {isa}; this is {VERSION}, {ISA.version}")
    kinds_at = _HEADER.size
    text_at = kinds_at + 4 * args + -(kinds_at + 4 * args) % 8
    offsets_at = text_at + 8 * words
    locs_at = offsets_at + 4 * (locs + 1)
    if locs_at + loc_bytes != len(data):
        raise ImageError(f"the header tells of {locs_at + loc_bytes} bytes, there are {len(data)}")
    kinds = np.frombuffer(data, "<u4", args, kinds_at)
    offsets = np.frombuffer(data, "<u4", locs + 1, offsets_at).astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != loc_bytes or (np.diff(offsets) < 0).any():
        raise ImageError("the offsets of the locations do not ascend from 0 to the end")
    if kinds.size and kinds.max() > max(ArgKind):
        raise ImageError(f"argument kind {kinds.max()} is unknown")
    text = np.frombuffer(data, "<u8", words, text_at).astype(np.uint64)
    pairs = zip(offsets[:-1] + locs_at, offsets[1:] + locs_at, strict=True)
    return Image(
        fingerprint,
        tuple(ArgKind(k) for k in kinds),
        text,
        tuple(data[a:b].decode() for a, b in pairs),
    )
