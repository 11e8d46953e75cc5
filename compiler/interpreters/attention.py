"""Rotation and attention in PyTorch, as `interpreters/npu.py` runs them."""

import torch
from opennpu.compiler.interpreters.table import means, wide
from opennpu.compiler.rewriting import attr
from torch import Tensor


@means("npu.rope")
def _rope(machine, op, x, positions, cache):
    """The first R elements of each head, in pairs, times the complex number cos + i·sin."""
    size = attr(op, "head_dim")
    cos, sin = wide(cache[positions.long()]).unsqueeze(1).chunk(2, -1)
    half = cos.shape[-1]
    heads = wide(x).unflatten(-1, (-1, size))
    rotated = heads[..., : 2 * half]
    even, odd = (
        (rotated[..., :half], rotated[..., half:])
        if attr(op, "neox")
        else rotated.unflatten(-1, (-1, 2)).unbind(-1)
    )
    turned = torch.complex(even, odd) * torch.complex(cos, sin)
    pairs = (turned.real, turned.imag)
    rotated = torch.cat(pairs, -1) if attr(op, "neox") else torch.stack(pairs, -1).flatten(-2)
    return torch.cat((rotated, heads[..., 2 * half :]), -1).flatten(-2)


@means("npu.kv_write")
def _kv_write(machine, op, k, v, slots):
    for pages, rows in zip(machine.pages(op), (k, v), strict=True):
        pages[slots.long()] = rows.view(-1, *pages.shape[1:])


@means("npu.rope_kv_write")
def _rope_kv_write(machine, op, qkv, positions, cache, slots):
    size, heads, kv_heads = (attr(op, name) for name in ("head_dim", "heads", "kv_heads"))
    q, k, v = qkv.split([heads * size, kv_heads * size, kv_heads * attr(op, "v_head_dim")], -1)
    q, k = (_rope(machine, op, x, positions, cache).to(qkv.dtype) for x in (q, k))
    _kv_write(machine, op, k, v, slots)
    return q


@means("npu.paged_attention")
def _paged_attention(machine, op, q, block_table, seq_lens, q_start):
    """The queries of a sequence are the last of its seq_lens tokens."""
    keys, values = machine.pages(op)
    page = machine.kv.page_size
    out = torch.zeros(q.shape[0], attr(op, "heads"), attr(op, "v_head_dim"), dtype=wide(q).dtype)
    q = q.unflatten(-1, (attr(op, "heads"), -1))
    bounds = zip(block_table, seq_lens.tolist(), q_start[:-1].tolist(), q_start[1:].tolist(), strict=True)
    for pages, length, first, end in bounds:
        at = torch.arange(length)
        slots = pages.long()[at // page] * page + at % page
        out[first:end] = _attend_packed(op, q[first:end], keys[slots], values[slots], causal=True)
    return out.flatten(1)


@means("npu.varlen_attention")
def _varlen_attention(machine, op, q, k, v, q_start, k_start):
    out = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=wide(q).dtype)
    for sequence in range(len(q_start) - 1):
        rows, keys = (slice(*start[sequence : sequence + 2].tolist()) for start in (q_start, k_start))
        out[rows] = _attend_packed(op, q[rows], k[keys], v[keys], bool(attr(op, "causal")))
    return out


@means("npu.dense_attention")
def _dense_attention(machine, op, q, k, v, *mask):
    seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
    bias = 0
    if attr(op, "causal"):
        seen = seen.tril()
    if mask and mask[0].dtype == torch.bool:
        seen = seen & mask[0]
    elif mask:
        bias = wide(mask[0])
    group = q.shape[1] // k.shape[1]
    k, v = (wide(x).repeat_interleave(group, 1) for x in (k, v))
    return _weigh(wide(q) @ k.mT * attr(op, "scale") + bias, seen, v)


def _attend_packed(op, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """One sequence, q[n, H, D], k[m, Hkv, D], v[m, Hkv, Dv]; its last query stands at its last key."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (wide(x).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.repeat_interleave(group, 0).mT * attr(op, "scale")
    if cap := attr(op, "logit_cap"):
        scores = cap * torch.tanh(scores / cap)
    n, m = scores.shape[1:]
    age = torch.arange(m - n, m)[:, None] - torch.arange(m)
    seen = (age >= 0 if causal else age >= -m) & (age < (attr(op, "window") or n + m))
    return _weigh(scores, seen, v.repeat_interleave(group, 0)).transpose(0, 1)


def _weigh(scores: Tensor, seen: Tensor, v: Tensor) -> Tensor:
    """softmax(scores)·v over what is seen; 0 where nothing is."""
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return weights.nan_to_num(0) @ v
