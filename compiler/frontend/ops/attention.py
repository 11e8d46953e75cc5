"""Attention."""

import torch
from opennpu.compiler.frontend.ops.kv_store import current_store
from torch import Tensor
from torch.library import custom_op


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
    store = current_store()
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
