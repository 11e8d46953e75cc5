"""Rotary embedding: computed in float32, rounded once to the dtype of `q`, `k`."""

import torch
from torch import Tensor
from torch.library import custom_op


@custom_op("opennpu::rotary_embedding", mutates_args=())
def rotary_embedding(
    positions: Tensor, q: Tensor, k: Tensor, cos_sin_cache: Tensor, head_dim: int, neox: bool
) -> tuple[Tensor, Tensor]:
    """Rotate q[T, H·D] and k[T, Hkv·D] by positions[T].

    cos_sin_cache[maxpos, R] holds cosines in its first half and sines in its second;
    the first R of each head's D elements rotate. neox pairs element i with i + R/2,
    otherwise 2i with 2i + 1.
    """
    cos, sin = cos_sin_cache[positions].float()[:, None].chunk(2, -1)
    return _rotate(q, cos, sin, head_dim, neox), _rotate(k, cos, sin, head_dim, neox)


@rotary_embedding.register_fake
def _(positions, q, k, cos_sin_cache, head_dim, neox):
    return q.new_empty(q.shape), k.new_empty(k.shape)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, head_dim: int, neox: bool) -> Tensor:
    heads = x.view(x.shape[0], -1, head_dim)
    rotated, rest = heads.float().split([2 * cos.shape[-1], head_dim - 2 * cos.shape[-1]], -1)
    a, b = rotated.chunk(2, -1) if neox else (rotated[..., ::2], rotated[..., 1::2])
    pair = (a * cos - b * sin, b * cos + a * sin)
    rotated = torch.cat(pair, -1) if neox else torch.stack(pair, -1).flatten(-2)
    return torch.cat([rotated, rest], -1).to(x.dtype).view(x.shape)
