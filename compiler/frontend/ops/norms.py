"""Normalisation over the last dimension: computed in float32, rounded once to the dtype of `x`."""

import torch.nn.functional as F
from opennpu.compiler.frontend.ops.library import FLOATS, check_dtype, check_rank, check_shape, operator
from torch import Tensor


def _rms_norm(x, w, eps):
    return _normed("rms_norm", x, w)


@operator("rms_norm(Tensor x, Tensor w, float eps) -> Tensor", _rms_norm)
def rms_norm(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · w.

    x[..., N] float32 or bfloat16; w[N], either of them. → as x.
    TypeError for another dtype, ValueError for another shape of w.
    """
    return F.rms_norm(x.float(), w.shape, w.float(), eps).to(x.dtype)


def _add_rms_norm(x, residual, w, eps):
    check_dtype("add_rms_norm", "residual", residual, [x.dtype])
    check_shape("add_rms_norm", "residual", residual, x.shape)
    return _normed("add_rms_norm", x, w), x.new_empty(x.shape)


@operator("add_rms_norm(Tensor x, Tensor residual, Tensor w, float eps) -> (Tensor, Tensor)", _add_rms_norm)
def add_rms_norm(x: Tensor, residual: Tensor, w: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual); the norm sees the sum before it is rounded.

    x, residual [..., N], float32 or bfloat16 both; w[N], either of them. → both as x.
    TypeError for another dtype, ValueError for another shape.
    """
    total = x.float() + residual.float()
    return F.rms_norm(total, w.shape, w.float(), eps).to(x.dtype), total.to(x.dtype)


def _layer_norm(x, w, b, eps):
    if b is not None:
        check_dtype("layer_norm", "b", b, FLOATS)
        check_shape("layer_norm", "b", b, x.shape[-1:])
    return _normed("layer_norm", x, w)


@operator("layer_norm(Tensor x, Tensor w, Tensor? b, float eps) -> Tensor", _layer_norm)
def layer_norm(x: Tensor, w: Tensor, b: Tensor | None, eps: float) -> Tensor:
    """(x - mean(x)) / sqrt(variance(x) + eps) · w + b.

    x[..., N] float32 or bfloat16; w[N], b[N] (None: zeros), either of them. → as x.
    TypeError for another dtype, ValueError for another shape of w or b.
    """
    b = None if b is None else b.float()
    return F.layer_norm(x.float(), w.shape, w.float(), b, eps).to(x.dtype)


def _normed(op: str, x: Tensor, w: Tensor) -> Tensor:
    check_dtype(op, "x", x, FLOATS)
    check_rank(op, "x", x, 1)
    check_dtype(op, "w", w, FLOATS)
    check_shape(op, "w", w, x.shape[-1:])
    return x.new_empty(x.shape)
