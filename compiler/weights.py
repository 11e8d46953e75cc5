"""The weight segment of model.npu: what the signature's entries say, as a stream of bytes.

Layouts `rows`, `packed` and `table` are defined in docs/architecture.md.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.runtime.chip import Chip
from opennpu.runtime.dtypes import DTYPES

Buffer = bytes | memoryview


def check_weights(entries: list[dict], tensors: Mapping[str, torch.Tensor]) -> None:
    """Every entry's parameter is there with its shape and dtype; CompileError tells all that are not."""
    problems = []
    for entry in entries:
        for name in entry.get("names", ()):
            tensor = tensors.get(name)
            if tensor is None:
                problems.append(Problem(f"weight {name} is missing", remedy="export the model again"))
            elif (list(tensor.shape), tensor.dtype) != (entry["shape"], DTYPES[entry["dtype"]]):
                found = f"{list(tensor.shape)} {tensor.dtype}"
                problems.append(Problem(f"weight {name} is {found}, not {entry['shape']} {entry['dtype']}"))
    if problems:
        raise CompileError(*problems)


def have_values(entries: list[dict], tensors: Mapping[str, torch.Tensor]) -> bool:
    """False for dummy weights: tensors on the meta device have shapes only."""
    return not any(tensors[name].is_meta for entry in entries for name in entry.get("names", ()))


def segment(
    entries: list[dict], tensors: Mapping[str, torch.Tensor], chip: Chip, size: int
) -> Iterator[Buffer]:
    """The bytes of the segment in order, `size` in all; one tile column of a matrix at a time."""
    at = 0
    for offset, chunk in pieces(sorted(entries, key=lambda e: e["offset"]), tensors, chip):
        yield bytes(offset - at)
        yield chunk
        at = offset + len(chunk)
    yield bytes(size - at)


def pieces(
    entries: Iterable[dict], tensors: Mapping[str, torch.Tensor], chip: Chip
) -> Iterator[tuple[int, Buffer]]:
    """(offset in the segment, bytes) of what the entries pack; tensors may be on any device.

    Needs the memory of one tensor on the host.
    """
    for entry in entries:
        at = entry["offset"]
        for chunk in _LAYOUTS[entry["layout"]](entry, tensors, chip):
            if len(chunk):
                yield at, chunk
            at += len(chunk)
        assert at - entry["offset"] == entry["bytes"], f"{entry} packs into {at - entry['offset']} bytes"


def _rows(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    yield _contiguous(_numpy(tensors[entry["names"][0]]))


def _table(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    yield np.array(entry["entries"], dtype="<i8").tobytes()


def _packed(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    """One column tile after another: blocks [k tile] of [strip of nt][pair of K][strip][pair].

    A pair is moved as one wide word.
    """
    nt, pair = entry["nt"], chip.pair if entry["dtype"] == "bf16" else 1
    depth = chip.mx_k // pair
    for parts in _column_tiles(entry, _numpy(tensors[entry["names"][0]])):
        word = np.dtype(f"u{pair * parts[0].itemsize}")
        strips = _padded(parts, nt // len(parts), pair).view(word).reshape(nt // chip.strip, chip.strip, -1)
        full = strips.shape[2] // depth * depth
        blocks = strips[:, :, :full].reshape(*strips.shape[:2], -1, depth).transpose(2, 0, 3, 1)
        yield _contiguous(blocks)
        yield _contiguous(strips[:, :, full:].transpose(0, 2, 1))


def _padded(parts: list[np.ndarray], height: int, pair: int) -> np.ndarray:
    """Each part with zeros below, up to `height` rows, and behind, up to whole pairs."""
    k = parts[0].shape[1]
    padded = np.zeros((len(parts), height, k + -k % pair), parts[0].dtype)
    for whole, part in zip(padded, parts, strict=True):
        whole[: len(part), :k] = part
    return padded.reshape(-1, padded.shape[2])


def _column_tiles(entry: dict, w: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Rows of every matrix [N][K] by nt, the last short; with `gate` half as many of each half of N."""
    for matrix in w.reshape(-1, *w.shape[-2:]):
        matrix = matrix.T if entry["transpose"] else matrix
        halves = np.split(matrix, 2) if entry["gate"] else [matrix]
        step = entry["nt"] // len(halves)
        for n in range(0, len(halves[0]), step):
            yield [half[n : n + step] for half in halves]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """The bits of a tensor: unsigned integers of its element size."""
    bits = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}[tensor.element_size()]
    return tensor.detach().cpu().contiguous().view(bits).numpy()


def _contiguous(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


_LAYOUTS = {"rows": _rows, "packed": _packed, "table": _table}
