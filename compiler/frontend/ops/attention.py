"""Attention over packed sequences, and over the pages that a program's launch brings.

Scores and softmax are computed in float32, results rounded once to the dtype of `q`.
Neighbouring query heads share a KV head where there are fewer of these.
"""

from dataclasses import dataclass

import torch
from opennpu.compiler.frontend.ops.kv_store import current_store
from opennpu.compiler.frontend.ops.library import (
    FLOATS,
    INTEGERS,
    check,
    check_dtype,
    check_rank,
    check_shape,
    operator,
)
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """How the scores of one sequence come about from products of queries and keys."""

    scale: float
    softcap: float = 0.0  # 0: none
    causal: bool = True
    window_left: int = -1  # -1: none

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q[n, H, D], k[m, Hkv, D], v[m, Hkv, Dv] → [n, H, Dv]; the last query stands at the last key."""
        grouped = q.unflatten(1, (k.shape[1], q.shape[1] // k.shape[1])).float()
        x = torch.einsum("nkgd,mkd->kgnm", grouped, k.float()) * self.scale
        if self.softcap:
            x = self.softcap * torch.tanh(x / self.softcap)
        n, m = x.shape[2:]
        age = torch.arange(m - n, m)[:, None] - torch.arange(m)
        hidden = (age < 0) & self.causal
        if self.window_left >= 0:
            hidden |= age > self.window_left
        weights = x.masked_fill(hidden, float("-inf")).softmax(-1).nan_to_num(0)  # 0 where all is hidden
        return torch.einsum("kgnm,mkd->nkgd", weights, v.float()).flatten(1, 2).to(q.dtype)


# ---- packed sequences


def _flash_attention(
    q, k, v, cu_seqlens_q, cu_seqlens_k, *, softmax_scale=None, causal=False, window_left=-1, softcap=0.0
):
    name = "flash_attention"
    check_heads(name, q, k, v)
    for which, starts in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        check_dtype(name, which, starts, INTEGERS)
        check_rank(name, which, starts, 1, 1)
    check_shape(name, "cu_seqlens_k", cu_seqlens_k, cu_seqlens_q.shape)
    check_scores(name, window_left, softcap)
    return q.new_empty(*q.shape[:2], v.shape[2])


@operator(
    "flash_attention(Tensor q, Tensor k, Tensor v, Tensor cu_seqlens_q, Tensor cu_seqlens_k, *,"
    " float? softmax_scale=None, bool causal=False, int window_left=-1, float softcap=0.0) -> Tensor",
    _flash_attention,
)
def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_left: int = -1,
    softcap: float = 0.0,
) -> Tensor:
    """Exact attention over sequences of different lengths that lie one behind the other.

    q[Tq, H, D], k[Tk, Hkv, D], v[Tk, Hkv, Dv], float32 or bfloat16, any strides, H a multiple of
    Hkv; cu_seqlens_q[B + 1], cu_seqlens_k[B + 1] int32 or int64, ascending from 0: sequence b has
    the queries cu_seqlens_q[b] … cu_seqlens_q[b + 1] - 1 and the keys that cu_seqlens_k says
    likewise; either may be empty. → [Tq, H, Dv] of q's dtype, 0 for a query that sees no key,
    undefined for rows of no sequence.

    A query at position p sees the key at t unless causal and t > p, or window_left ≥ 0 and
    t < p - window_left. The last query stands at the last key (as in flash-attn 2.1).
    softmax_scale None is 1/√D; softcap c > 0 replaces a scaled score s by c·tanh(s / c).
    TypeError for another dtype, ValueError for another shape, window or cap.

    Source: FlashAttention-2 (Dao 2023), whose library gives the arguments their names.
    """
    scores = Scores(softmax_scale_of(softmax_scale, q), softcap, causal, window_left)
    out = q.new_zeros(*q.shape[:2], v.shape[2])
    q_bounds, k_bounds = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for b in range(len(q_bounds) - 1):
        rows, keys = (slice(*bounds[b : b + 2]) for bounds in (q_bounds, k_bounds))
        out[rows] = scores.attend(q[rows], k[keys], v[keys])
    return out


# ---- pages


def _paged_attention(
    q, k, v, slot_mapping, block_table, seq_lens, q_start, layer, heads, kv_heads, head_dim, v_head_dim, *_
):
    name, tokens = "paged_attention", q.shape[0]
    check_shape(name, "q", q, (tokens, heads * head_dim))
    check_shape(name, "k", k, (tokens, kv_heads * head_dim))
    check_shape(name, "v", v, (tokens, kv_heads * v_head_dim))
    check_shape(name, "slot_mapping", slot_mapping, (tokens,))
    return q.new_empty(tokens, heads * v_head_dim)


@operator(
    "paged_attention(Tensor q, Tensor k, Tensor v, Tensor slot_mapping, Tensor block_table, Tensor seq_lens,"
    " Tensor q_start, int layer, int heads, int kv_heads, int head_dim, int v_head_dim, float scale,"
    " float logit_cap, int window) -> Tensor",
    _paged_attention,
)
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

    The pages are no argument: a program's launch brings them, on the host `kv_store` does.
    q[T, heads·head_dim], k[T, kv_heads·head_dim], v[T, kv_heads·v_head_dim];
    slot_mapping[T]: where each token's k and v go; block_table[B, P]: the pages of
    each sequence; seq_lens[B]: tokens of a sequence in its pages, these ones
    included; q_start[B + 1]: the rows of q that belong to sequence b are
    q_start[b]..q_start[b + 1]. logit_cap c > 0 replaces the scaled logit s by
    c·tanh(s / c). window w > 0 lets a query see its own token and the w - 1 before it.
    Returns [T, heads·v_head_dim]; rows of no sequence are undefined. ValueError for another shape of
    what has T rows.
    """
    store = current_store()
    caches = store.layer(layer, kv_heads, head_dim, v_head_dim, q.dtype)
    pages = tuple(cache.unflatten(0, (-1, store.page_size)) for cache in caches)
    write_pages(pages, slot_mapping, k.unflatten(1, (kv_heads, -1)), v.unflatten(1, (kv_heads, -1)))
    scores = Scores(scale, logit_cap, window_left=window - 1)
    out = attend_pages(scores, q.unflatten(1, (heads, -1)), pages, block_table, seq_lens, q_start)
    return out.flatten(1)


def write_pages(pages: tuple[Tensor, Tensor], slots: Tensor, k: Tensor, v: Tensor) -> None:
    """k[T, Hkv, D] and v[T, Hkv, Dv] into slots[T] of the pages [pages, page_size, Hkv, D or Dv]."""
    for cache, rows in zip(pages, (k, v), strict=True):
        size = cache.shape[1]
        cache[slots // size, slots % size] = rows


def attend_pages(
    scores: Scores,
    q: Tensor,
    pages: tuple[Tensor, Tensor],
    block_table: Tensor,
    seq_lens: Tensor,
    q_start: Tensor,
) -> Tensor:
    """q[T, H, D] → [T, H, Dv], sequence by sequence."""
    size, starts = pages[0].shape[1], q_start.tolist()
    out = q.new_zeros(*q.shape[:2], pages[1].shape[3])
    for b, length in enumerate(seq_lens.tolist()):
        rows, at = slice(*starts[b : b + 2]), torch.arange(length)
        k, v = (cache[block_table[b, at // size].long(), at % size] for cache in pages)
        out[rows] = scores.attend(q[rows], k, v)
    return out


# ---- options and checks


def check_heads(op: str, q: Tensor, k: Tensor, v: Tensor, tokens=None) -> None:
    """q[Tq, H, D], k[Tk, Hkv, D], v[Tk, Hkv, Dv] of one float dtype; Tk is `tokens` where given."""
    check_dtype(op, "q", q, FLOATS)
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_dtype(op, name, x, [q.dtype])
        check_rank(op, name, x, 3, 3)
    check_shape(op, "k", k, (k.shape[0] if tokens is None else tokens, k.shape[1], q.shape[2]))
    check_shape(op, "v", v, (*k.shape[:2], v.shape[2]))
    heads, kv_heads = q.shape[1], k.shape[1]
    divides = kv_heads > 0 and heads % kv_heads == 0
    check(divides, f"opennpu::{op}: q has {heads} heads, expected a multiple of k's {kv_heads}")


def check_scores(op: str, window_left: int, softcap: float) -> None:
    check(window_left >= -1, f"opennpu::{op}: window_left is {window_left}, expected at least -1 (no window)")
    check(softcap >= 0, f"opennpu::{op}: softcap is {softcap}, expected at least 0 (no cap)")


def softmax_scale_of(softmax_scale: float | None, q: Tensor) -> float:
    """The scale that was given, else 1/√D."""
    return q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
