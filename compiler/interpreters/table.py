"""The table of op → its meaning in PyTorch, and what the meanings share."""

from collections.abc import Callable

import torch
from opennpu.runtime.dtypes import DTYPES
from torch import Tensor
from torch_mlir import ir

ELEMENTS = {"i1" if name == "bool" else name: dtype for name, dtype in DTYPES.items()}
"""MLIR's element types as PyTorch's."""

OPS: dict[str, Callable] = {}
"""Op → function (machine, op, *operands) that returns the result, the results, or nothing."""


def means(name: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        OPS[name] = function
        return function

    return register


def element_dtype(value: ir.Value) -> torch.dtype:
    return ELEMENTS[str(ir.RankedTensorType(value.type).element_type)]


def wide(x: Tensor) -> Tensor:
    """In the type that ops compute in: float32, or int64 for integers."""
    return x.float() if x.is_floating_point() else x.long()
