"""Gated activations: computed in float32, rounded once to the dtype of `x`."""

import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op


@custom_op("opennpu::silu_and_mul", mutates_args=())
def silu_and_mul(x: Tensor) -> Tensor:
    """x[..., 2F] → silu(x[..., :F]) · x[..., F:]."""
    gate, up = x.float().chunk(2, -1)
    return (F.silu(gate) * up).to(x.dtype)


@custom_op("opennpu::gelu_and_mul", mutates_args=())
def gelu_and_mul(x: Tensor, approximate: str) -> Tensor:
    """x[..., 2F] → gelu(x[..., :F]) · x[..., F:]; approximate is "none" or "tanh"."""
    gate, up = x.float().chunk(2, -1)
    return (F.gelu(gate, approximate=approximate) * up).to(x.dtype)


@silu_and_mul.register_fake
@gelu_and_mul.register_fake
def _(x, approximate="none"):
    return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
