"""Normalisation: computed in float32, rounded once to the dtype of `x`."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op


@custom_op("opennpu::rms_norm", mutates_args=())
def rms_norm(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """x[..., N], w[N] → x / sqrt(mean(x²) + eps) · w."""
    return F.rms_norm(x.float(), w.shape, w.float(), eps).to(x.dtype)


@rms_norm.register_fake
def _(x, w, eps):
    return torch.empty_like(x)


@custom_op("opennpu::add_rms_norm", mutates_args=())
def add_rms_norm(x: Tensor, residual: Tensor, w: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x, residual [..., N], w[N] → rms_norm(x + residual), x + residual."""
    total = x.float() + residual.float()
    return F.rms_norm(total, w.shape, w.float(), eps).to(x.dtype), total.to(x.dtype)


@add_rms_norm.register_fake
def _(x, residual, w, eps):
    return torch.empty_like(x), torch.empty_like(x)
