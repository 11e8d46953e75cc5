"""The table of folds: by the name of an op, functions that find a simpler value for its result.

A fold gets the op and returns a value that can take the place of its only result, or None.
Ops that it builds are put in front of the op, at its location.
"""

from collections.abc import Callable
from typing import Any

from opennpu.compiler.rewriting import attr, definition
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim
from torch_mlir import ir

Fold = Callable[[ir.Operation], ir.Value | None]
FOLDS: dict[str, list[Fold]] = {}


def folds(*names: str) -> Callable[[Fold], Fold]:
    """Registers a fold of the ops `npu.<name>`."""

    def register(fold: Fold) -> Fold:
        for name in names:
            FOLDS.setdefault(f"npu.{name}", []).append(fold)
        return fold

    return register


# ---- what folds share


def result_dims(op: ir.Operation) -> tuple[Dim, ...]:
    return npu.dims(op.results[0])


def splat(value: ir.Value) -> Any:
    """The number that every element is, or None."""
    op = definition(value, "npu.constant")
    return None if op is None else attr(op, "value")


def iota_along(value: ir.Value) -> tuple[int, int, int] | None:
    """(dim, start, step) of a value that counts along one dimension and is the same along the others."""
    op = definition(value, "npu.iota", "npu.reshape", "npu.broadcast")
    if op is None:
        return None
    if op.name == "npu.iota":
        return attr(op, "dim"), attr(op, "start"), attr(op, "step")
    inner = iota_along(op.operands[0])
    if inner is None:
        return None
    dim, start, step = inner
    source, target = npu.dims(op.operands[0]), npu.dims(value)
    if op.name == "npu.broadcast":
        spread = source[dim] != target[dim + len(target) - len(source)]
        return None if spread else (dim + len(target) - len(source), start, step)
    if [d for d in source if d != 1] != [d for d in target if d != 1] or source[dim] == 1:
        return None
    number = sum(d != 1 for d in source[:dim])  # of dim among those that are not 1
    return [i for i, d in enumerate(target) if d != 1][number], start, step
