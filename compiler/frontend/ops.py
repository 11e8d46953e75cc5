"""The `opennpu::` operators: what stays whole between a model and the compiler.

Each one has a schema, a shape function for tracing, and a plain PyTorch
implementation, so that an exported program can also be run on the host. Norms,
softmax and rotation compute in float32 and round once, to the dtype of `x`, `q`.

Importing this module registers them. It is needed before an archive that uses
them can be loaded; SGLang is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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


@custom_op("opennpu::paged_attention", mutates_args=())
def paged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slot_mapping: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    q_start: Tensor,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    v_head_dim: int,
    scale: float,
    logit_cap: float,
    window: int,
) -> Tensor:
    """Write k, v into the layer's pages, then attend causally over them.

    q[T, heads·head_dim], k[T, kv_heads·head_dim], v[T, kv_heads·v_head_dim];
    slot_mapping[T]: where each token's k and v go; block_table[B, P]: the pages of
    each sequence; seq_lens[B]: tokens of a sequence in its pages, these ones
    included; q_start[B + 1]: the rows of q that belong to sequence b are
    q_start[b]..q_start[b + 1]. logit_cap c > 0 replaces the scaled logit s by
    c·tanh(s / c). window w > 0 lets a query see its own token and the w - 1 before it.
    Returns [T, heads·v_head_dim]; rows of no sequence are zero.
    """
    store = _current_store()
    keys, values = store.layer(layer, kv_heads, head_dim, v_head_dim, q.dtype)
    keys[slot_mapping] = k.view(-1, kv_heads, head_dim)
    values[slot_mapping] = v.view(-1, kv_heads, v_head_dim)
    out = q.new_zeros(q.shape[0], heads, v_head_dim)
    for b, length in enumerate(seq_lens.tolist()):
        rows = slice(int(q_start[b]), int(q_start[b + 1]))
        count = rows.stop - rows.start
        key_pos = torch.arange(length)
        slots = block_table[b, key_pos // store.page_size].long() * store.page_size
        slots += key_pos % store.page_size
        query = q[rows].view(count, kv_heads, heads // kv_heads, head_dim).float()
        logits = torch.einsum("tkgd,lkd->kgtl", query, keys[slots].float()) * scale
        if logit_cap > 0:
            logits = logit_cap * torch.tanh(logits / logit_cap)
        distance = torch.arange(length - count, length)[:, None] - key_pos
        hidden = (distance < 0) | (distance >= window) if window > 0 else distance < 0
        weights = logits.masked_fill(hidden, float("-inf")).softmax(-1)
        result = torch.einsum("kgtl,lkd->tkgd", weights, values[slots].float())
        out[rows] = result.reshape(count, heads, v_head_dim).to(out.dtype)
    return out.view(-1, heads * v_head_dim)


@paged_attention.register_fake
def _(
    q, k, v, slot_mapping, block_table, seq_lens, q_start, layer, heads, kv_heads, head_dim, v_head_dim, *_
):
    return q.new_empty(q.shape[0], heads * v_head_dim)


@dataclass
class KvStore:
    """Keys and values of every layer, for running an exported program on the host."""

    page_size: int  # tokens
    slots: int  # tokens in all pages
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def layer(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int, dtype: torch.dtype):
        """The keys [slots, kv_heads, head_dim] and values [slots, kv_heads, v_head_dim]."""
        if layer not in self.layers:
            self.layers[layer] = tuple(
                torch.zeros(self.slots, kv_heads, dim, dtype=dtype) for dim in (head_dim, v_head_dim)
            )
        return self.layers[layer]


@contextmanager
def kv_store(store: KvStore) -> Iterator[KvStore]:
    """Let `opennpu::paged_attention` read and write this store inside the block."""
    _stores.append(store)
    try:
        yield store
    finally:
        _stores.pop()


_stores: list[KvStore] = []


def _current_store() -> KvStore:
    if not _stores:
        raise RuntimeError(
            "opennpu::paged_attention needs memory for keys and values: "
            "call the program inside `with opennpu.compiler.frontend.ops.kv_store(...)`"
        )
    return _stores[-1]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, head_dim: int, neox: bool) -> Tensor:
    heads = x.view(x.shape[0], -1, head_dim)
    rotated, rest = heads.float().split([2 * cos.shape[-1], head_dim - 2 * cos.shape[-1]], -1)
    a, b = rotated.chunk(2, -1) if neox else (rotated[..., ::2], rotated[..., 1::2])
    pair = (a * cos - b * sin, b * cos + a * sin)
    rotated = torch.cat(pair, -1) if neox else torch.stack(pair, -1).flatten(-2)
    return torch.cat([rotated, rest], -1).to(x.dtype).view(x.shape)
