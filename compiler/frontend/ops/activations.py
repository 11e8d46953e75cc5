"""Activations: computed in float32, rounded once to the dtype of `x`."""

from functools import partial

import torch
import torch.nn.functional as F
from opennpu.compiler.frontend.ops.library import (
    FLOATS,
    check_dtype,
    check_even,
    check_one_of,
    check_rank,
    operator,
)
from torch import Tensor

GELU = {"none": F.gelu, "tanh": partial(F.gelu, approximate="tanh")}
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": torch.relu,
    "gelu": GELU["none"],
    "gelu_tanh": GELU["tanh"],
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
"""What may follow a matrix product, element by element."""

GATES = {"gate_silu": F.silu, "gate_gelu": GELU["none"], "gate_gelu_tanh": GELU["tanh"]}
"""What may follow a matrix product whose columns are gate, then up: act(gate) · up."""


def apply(activation: str, x: Tensor) -> Tensor:
    """One of ACTIVATIONS, or one of GATES, which halves the last dimension."""
    if activation not in GATES:
        return ACTIVATIONS[activation](x)
    gate, up = x.chunk(2, -1)
    return GATES[activation](gate) * up


def _silu_and_mul(x):
    return _halved("silu_and_mul", x)


@operator("silu_and_mul(Tensor x) -> Tensor", _silu_and_mul)
def silu_and_mul(x: Tensor) -> Tensor:
    """silu(x[..., :F]) · x[..., F:].

    x[..., 2F] float32 or bfloat16 → [..., F] of its dtype. TypeError for another dtype,
    ValueError for an odd last extent.
    """
    return apply("gate_silu", x.float()).to(x.dtype)


def _gelu_and_mul(x, approximate="none"):
    check_one_of("gelu_and_mul", "approximate", approximate, list(GELU))
    return _halved("gelu_and_mul", x)


@operator('gelu_and_mul(Tensor x, str approximate="none") -> Tensor', _gelu_and_mul)
def gelu_and_mul(x: Tensor, approximate: str = "none") -> Tensor:
    """gelu(x[..., :F]) · x[..., F:]; approximate is "none" (by erf) or "tanh".

    x[..., 2F] float32 or bfloat16 → [..., F] of its dtype. TypeError for another dtype,
    ValueError for an odd last extent or another name.
    """
    gate, up = x.float().chunk(2, -1)
    return (GELU[approximate](gate) * up).to(x.dtype)


def _halved(op: str, x: Tensor) -> Tensor:
    check_dtype(op, "x", x, FLOATS)
    check_rank(op, "x", x, 1)
    check_even(op, "x", x.shape[-1])
    return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
