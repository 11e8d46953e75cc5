"""The weight segment of model.npu: what the signature's entries say, as a stream of bytes.

Layouts `rows`, `packed` and `table` are defined in docs/architecture.md.
"""

from collections.abc import Iterator, Mapping

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
    for entry in sorted(entries, key=lambda e: e["offset"]):
        yield bytes(entry["offset"] - at)
        start = at = entry["offset"]
        for chunk in _LAYOUTS[entry["layout"]](entry, tensors, chip):
            at += len(chunk)
            yield chunk
        assert at - start == entry["bytes"], f"{entry} packs into {at - start} bytes"
    yield bytes(size - at)


def _rows(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    yield _contiguous(_numpy(tensors[entry["names"][0]]))


def _table(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    yield np.array(entry["entries"], dtype="<i8").tobytes()


def _packed(entry: dict, tensors: Mapping[str, torch.Tensor], chip: Chip) -> Iterator[Buffer]:
    """One column tile after another: blocks [k tile] of [strip of nt][pair of K][strip][pair].

    A pair is moved as one wide word.
    """
    w = _numpy(tensors[entry["names"][0]])
    w = w.T if entry["transpose"] else w
    nt, pair = entry["nt"], chip.pair if entry["dtype"] == "bf16" else 1
    word = np.dtype(f"u{pair * w.itemsize}")
    depth = chip.mx_k // pair
    for rows in _column_tiles(w, nt, entry["gate"]):
        strips = _padded(rows, nt, pair).view(word).reshape(nt // chip.strip, chip.strip, -1)
        full = strips.shape[2] // depth * depth
        blocks = strips[:, :, :full].reshape(*strips.shape[:2], -1, depth).transpose(2, 0, 3, 1)
        yield _contiguous(blocks)
        yield _contiguous(strips[:, :, full:].transpose(0, 2, 1))


def _padded(rows: np.ndarray, height: int, pair: int) -> np.ndarray:
    """The rows with zeros below, up to `height` of them, and behind, up to whole pairs."""
    n, k = rows.shape
    padded = np.zeros((height, k + -k % pair), rows.dtype)
    padded[:n, :k] = rows
    return padded


def _column_tiles(w: np.ndarray, nt: int, gate: bool) -> Iterator[np.ndarray]:
    """Rows of w [N][K] by nt, the last short; with `gate` the halves of N take turns."""
    halves = np.split(w, 2) if gate else (w,)
    for n in range(0, len(halves[0]), nt):
        for half in halves:
            yield half[n : n + nt]


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    """The bits of a tensor: unsigned integers of its element size."""
    bits = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}[tensor.element_size()]
    return tensor.detach().contiguous().view(bits).numpy()


def _contiguous(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


_LAYOUTS = {"rows": _rows, "packed": _packed, "table": _table}
