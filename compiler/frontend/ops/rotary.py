"""Rotary embedding (Su et al. 2021): computed in float32, rounded once to the dtype of `q`, `k`."""

import torch
from opennpu.compiler.frontend.ops.library import (
    FLOATS,
    INTEGERS,
    check,
    check_dtype,
    check_even,
    check_rank,
    check_shape,
    operator,
)
from torch import Tensor

NAME = "rotary_embedding"


def _rotated(positions, q, k, cos_sin_cache, head_dim, neox):
    check_dtype(NAME, "positions", positions, INTEGERS)
    check_rank(NAME, "positions", positions, 1, 1)
    check_dtype(NAME, "cos_sin_cache", cos_sin_cache, FLOATS)
    check_rank(NAME, "cos_sin_cache", cos_sin_cache, 2, 2)
    width = cos_sin_cache.shape[1]
    check_even(NAME, "cos_sin_cache", width)
    check(head_dim > 0, f"opennpu::{NAME}: head_dim is {head_dim}, expected at least 1")
    fits = f"opennpu::{NAME}: cos_sin_cache rotates {width} elements, expected at most head_dim = {head_dim}"
    check(width <= head_dim, fits)
    for name, x in (("q", q), ("k", k)):
        check_dtype(NAME, name, x, FLOATS)
        check_rank(NAME, name, x, 2, 2)
        check_shape(NAME, name, x, (positions.shape[0], x.shape[1] // head_dim * head_dim))
    return q.new_empty(q.shape), k.new_empty(k.shape)


@operator(
    "rotary_embedding(Tensor positions, Tensor q, Tensor k, Tensor cos_sin_cache, int head_dim, bool neox)"
    " -> (Tensor, Tensor)",
    _rotated,
)
def rotary_embedding(
    positions: Tensor, q: Tensor, k: Tensor, cos_sin_cache: Tensor, head_dim: int, neox: bool
) -> tuple[Tensor, Tensor]:
    """Rotates the heads of q and k by their tokens' positions.

    positions[T] int64 or int32, each less than maxpos; q[T, H·D], k[T, Hkv·D] float32 or
    bfloat16 with D = head_dim; cos_sin_cache[maxpos, R], R ≤ D even, float32 or bfloat16,
    holds cosines in its first half and sines in its second. The first R of each head's D
    elements rotate. neox pairs element i with i + R/2, otherwise 2i with 2i + 1.
    → (q rotated, k rotated). TypeError for another dtype, ValueError for another shape.
    """
    cos, sin = cos_sin_cache[positions].float()[:, None].chunk(2, -1)
    return _rotate(q, cos, sin, head_dim, neox), _rotate(k, cos, sin, head_dim, neox)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, head_dim: int, neox: bool) -> Tensor:
    heads = x.unflatten(-1, (x.shape[1] // head_dim, head_dim))
    rotated, rest = heads.float().split([2 * cos.shape[-1], head_dim - 2 * cos.shape[-1]], -1)
    a, b = rotated.chunk(2, -1) if neox else (rotated[..., ::2], rotated[..., 1::2])
    pair = (a * cos - b * sin, b * cos + a * sin)
    rotated = torch.cat(pair, -1) if neox else torch.stack(pair, -1).flatten(-2)
    return torch.cat([rotated, rest], -1).to(x.dtype).flatten(-2)
