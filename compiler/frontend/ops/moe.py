"""Mixture of experts: routing, the product with each row's expert, and the whole layer.

A program is made for a number of experts and of choices: `int` of them ends their being symbolic.
"""

from itertools import pairwise

import torch
from opennpu.compiler.frontend.ops.activations import ACTIVATIONS, GATES, apply
from opennpu.compiler.frontend.ops.library import (
    FLOATS,
    INTEGERS,
    check,
    check_dtype,
    check_even,
    check_one_of,
    check_rank,
    check_shape,
    operator,
)
from torch import Tensor


def _topk_softmax(logits, k, renormalize=False):
    check_dtype("topk_softmax", "logits", logits, FLOATS)
    check_rank("topk_softmax", "logits", logits, 2, 2)
    rows, experts = logits.shape[0], int(logits.shape[1])
    check(k > 0, f"opennpu::topk_softmax: k is {k}, expected at least 1")
    check(k <= experts, f"opennpu::topk_softmax: k is {k}, expected at most the {experts} experts")
    return (
        logits.new_empty(rows, k, dtype=torch.float32),
        logits.new_empty(rows, k, dtype=torch.int32),
    )


@operator(
    "topk_softmax(Tensor logits, int k, bool renormalize=False) -> (Tensor weights, Tensor ids)",
    _topk_softmax,
)
def topk_softmax(logits: Tensor, k: int, renormalize: bool = False) -> tuple[Tensor, Tensor]:
    """The k most probable experts of every token and their probabilities.

    logits[T, E] float32 or bfloat16, 1 ≤ k ≤ E → weights[T, k] float32, ids[T, k] int32: the
    softmax over all E in float32, its k greatest in descending order, of equals the lowest
    expert first. renormalize divides the weights by their sum.
    TypeError for another dtype, ValueError for another rank or k.
    """
    order = torch.sort(logits.float().softmax(-1), dim=-1, descending=True, stable=True)
    weights, ids = order.values[:, :k], order.indices[:, :k]
    return weights / weights.sum(-1, keepdim=True) if renormalize else weights, ids.int()


def _grouped_matmul(x, w, offsets, *, activation="none"):
    name = "grouped_matmul"
    check_dtype(name, "x", x, FLOATS)
    check_rank(name, "x", x, 2, 2)
    check_dtype(name, "w", w, [x.dtype])
    check_rank(name, "w", w, 3, 3)
    experts, (columns, k) = int(w.shape[0]), w.shape[1:]
    check_shape(name, "x", x, (x.shape[0], k))
    check_dtype(name, "offsets", offsets, INTEGERS)
    check_shape(name, "offsets", offsets, (experts + 1,))
    check_one_of(name, "activation", activation, [*ACTIVATIONS, *GATES])
    if activation in GATES:
        check_even(name, "x · w", columns)
        columns = columns // 2
    return x.new_empty(x.shape[0], columns)


@operator(
    'grouped_matmul(Tensor x, Tensor w, Tensor offsets, *, str activation="none") -> Tensor',
    _grouped_matmul,
)
def grouped_matmul(x: Tensor, w: Tensor, offsets: Tensor, *, activation: str = "none") -> Tensor:
    """activation(x[r] · w[e]ᵀ) for the rows r of every expert e, which are offsets[e] … offsets[e + 1] - 1.

    x[T, K] float32 or bfloat16, rows in the order of their experts; w[E, N, K] of x's dtype;
    offsets[E + 1] int32 or int64, ascending from 0 to T; activation as in `matmul`, with a
    gate the rows of w are gate, then up. → [T, N] (with a gate [T, N/2]) of x's dtype.
    An expert without rows costs nothing. TypeError for another dtype, ValueError for another
    shape or name; on the host also for offsets that are not as said (on the device rows
    of no expert are undefined).
    """
    bounds = offsets.tolist()
    text = f"opennpu::grouped_matmul: offsets are {bounds}, expected ascending from 0 to {x.shape[0]}"
    check(bounds[0] == 0 and bounds[-1] == x.shape[0] and bounds == sorted(bounds), text)
    rows = x.float().split([b - a for a, b in pairwise(bounds)])
    y = [apply(activation, each @ matrix.float().mT) for each, matrix in zip(rows, w, strict=True)]
    return torch.cat(y).to(x.dtype)


def _fused_moe(x, topk_weights, topk_ids, w13, w2, *, activation="silu"):
    name = "fused_moe"
    check_dtype(name, "x", x, FLOATS)
    check_rank(name, "x", x, 2, 2)
    check_rank(name, "w2", w2, 3, 3)
    (tokens, hidden), experts = x.shape, int(w2.shape[0])
    check_dtype(name, "topk_weights", topk_weights, FLOATS)
    check_rank(name, "topk_weights", topk_weights, 2, 2)
    check_shape(name, "topk_weights", topk_weights, (tokens, int(topk_weights.shape[1])))
    check_dtype(name, "topk_ids", topk_ids, INTEGERS)
    check_shape(name, "topk_ids", topk_ids, topk_weights.shape)
    width = w2.shape[2]
    check_shape(name, "w2", w2, (experts, hidden, width))
    check_shape(name, "w13", w13, (experts, 2 * width, hidden))
    for weight, matrix in (("w13", w13), ("w2", w2)):
        check_dtype(name, weight, matrix, [x.dtype])
    check_one_of(name, "activation", activation, [gate.removeprefix("gate_") for gate in GATES])
    return x.new_empty(x.shape)


@operator(
    "fused_moe(Tensor x, Tensor topk_weights, Tensor topk_ids, Tensor w13, Tensor w2, *,"
    ' str activation="silu") -> Tensor',
    _fused_moe,
)
def fused_moe(
    x: Tensor, topk_weights: Tensor, topk_ids: Tensor, w13: Tensor, w2: Tensor, *, activation: str = "silu"
) -> Tensor:
    """Σ over the experts e of a token: weight · w2[e] · (act(w1[e] · x) ⊙ (w3[e] · x)).

    x[T, H] float32 or bfloat16; topk_weights[T, k] float32 or bfloat16; topk_ids[T, k] int32
    or int64, 0 ≤ id < E; w13[E, 2F, H] (the rows of w1, then of w3) and w2[E, H, F] of x's
    dtype; activation silu, gelu or gelu_tanh. → [T, H] of x's dtype. The gated product and
    each expert's output are rounded to x's dtype, the weighted sum adds up in float32 in
    the order of topk_ids. TypeError for another dtype, ValueError for another shape or name.
    """
    expert, row = torch.sort(topk_ids.long().flatten(), stable=True)
    offsets = torch.searchsorted(expert, torch.arange(w13.shape[0] + 1, device=x.device))
    y = grouped_matmul(x[row // topk_ids.shape[1]], w13, offsets, activation=f"gate_{activation}")
    y = grouped_matmul(y, w2, offsets)[row.argsort()].view(*topk_ids.shape, -1)
    return (y.float() * topk_weights.float()[..., None]).sum(1).to(x.dtype)
