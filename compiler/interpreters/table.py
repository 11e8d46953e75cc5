"""The table of op → its meaning in PyTorch, and what the meanings share."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
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
    """In the type that ops compute in: float32 (float64 stays), or int64 for integers."""
    if not x.is_floating_point():
        return x.long()
    return x if x.dtype == torch.float64 else x.float()


# ---- element functions; operands are float32, or int64 where all are integers

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "copy": lambda x: x,
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "recip": torch.reciprocal,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "trunc": torch.trunc,
    "not": torch.logical_not,
}

GATES = {"gate_silu": "silu", "gate_gelu": "gelu", "gate_gelu_tanh": "gelu_tanh"}


def activated(step: str, y: Tensor) -> Tensor:
    """An epilogue's activation, or its gate, which halves the last dimension."""
    if step not in GATES:
        return UNARY[step](y)
    gate, up = y.chunk(2, -1)
    return UNARY[GATES[step]](gate) * up
