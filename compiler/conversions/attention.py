"""Attention: every kind of it becomes one op."""

import math
from collections.abc import Sequence

from opennpu.compiler.conversions.table import Unsupported, converts, rank, static
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim, dim, num_elements


@converts("aten.scaled_dot_product_attention")
def scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale, enable_gqa):
    """q[…,H,L,E], k[…,Hkv,S,E], v[…,Hkv,S,Ev]; Hkv is H, or with enable_gqa a divisor of it."""
    if dropout:
        raise Unsupported("dropout")
    keys = _keys(k, v, mask)
    k, v = _cut(k, -2, keys), _cut(v, -2, keys)
    outer, heads = _batch(q, k, v, enable_gqa)
    (length, width), (_, v_width) = npu.dims(q)[-2:], npu.dims(v)[-2:]
    q, k, v = (_four(x, outer, h, npu.dims(x)[-2:]) for x, h in zip((q, k, v), heads, strict=True))
    if mask is not None:
        mask = _four(_cut(mask, -1, keys), outer, heads[0], (length, keys))
    o = npu.dense_attention(q, k, v, mask, scale=_scale(scale, width), causal=is_causal)
    return npu.reshape(o, [*outer, *heads[0], length, v_width])


@converts("aten._scaled_dot_product_fused_attention_overrideable")
def fused_attention(q, k, v, mask, dropout, is_causal, _return_debug_mask, scale):
    """What autograd makes of it; the results for its backward pass are not computed."""
    return [scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale, True), *[None] * 8]


@converts("aten._scaled_dot_product_flash_attention_for_cpu")
def flash_attention_for_cpu(q, k, v, dropout, is_causal, mask, scale):
    return [scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale, True), None]


@converts("opennpu.flash_attention")
def flash_attention(q, k, v, q_start, k_start, scale, causal, window_left, softcap):
    return npu.varlen_attention(
        q,
        k,
        v,
        q_start,
        k_start,
        scale=_scale(scale, npu.dims(q)[-1]),
        causal=causal,
        logit_cap=softcap,
        window=window_left + 1,
    )


@converts("opennpu.paged_attention")
def paged_attention(
    q,
    k,
    v,
    slots,
    block_table,
    seq_lens,
    q_start,
    layer,
    heads,
    kv_heads,
    head_dim,
    v_head_dim,
    scale,
    logit_cap,
    window,
):
    sizes = dict(layer=layer, kv_heads=kv_heads, head_dim=head_dim, v_head_dim=v_head_dim)
    npu.kv_write(k, v, slots, **sizes)
    return npu.paged_attention(
        q,
        npu.cast(block_table, "i32"),
        seq_lens,
        q_start,
        heads=heads,
        scale=scale,
        logit_cap=logit_cap,
        window=window,
        **sizes,
    )


# ---- shapes


def _batch(q, k, v, enable_gqa) -> tuple[tuple[Dim, ...], list[tuple[Dim, ...]]]:
    """The common batch dimensions, and those of the heads of q, k and v: one each, or none.

    What is no group of heads is as good as a batch, whose extent need not be static.
    """
    outer = [npu.dims(x)[:-2] for x in (q, k, v)]
    if not enable_gqa:
        common = npu.broadcast(*outer)
        return (common[:-1], [common[-1:]] * 3) if len(common) > 1 else (common, [()] * 3)
    heads = [dims[-1:] for dims in outer]
    if heads[1] != heads[2]:
        raise Unsupported(f"groups of query heads that differ for keys ({heads[1]}) and values ({heads[2]})")
    return npu.broadcast(*(dims[:-1] for dims in outer)), heads


def _four(x, outer: Sequence[Dim], heads: Sequence[Dim], last: Sequence[Dim]):
    """x, broadcast, as [batch, heads, …, …]."""
    x = npu.broadcast_to(x, [*outer, *heads, *last])
    return npu.reshape(x, [dim(num_elements(outer)), *(heads or (1,)), *last])


def _keys(k, v, mask) -> Dim:
    """The number of keys, of which PyTorch may have several expressions: it traces without comparing them."""
    told = [npu.dims(k)[-2], npu.dims(v)[-2], *([npu.dims(mask)[-1]] if mask is not None else [])]
    told = [n for n in told if n != 1] or [1]
    return next((n for n in told if isinstance(n, int)), told[0])


def _cut(x, axis: int, keys: Dim):
    """x whose extent along the axis, unless it is 1, is told as `keys`."""
    return x if npu.dims(x)[axis] in (1, keys) else npu.slice_(x, rank(x) + axis, 0, keys)


def _scale(scale, width) -> float:
    """The scale that was given, else 1/√D."""
    size = static(width, "the head's size")
    if size == 0:
        raise Unsupported("attention with heads of no elements")
    return 1 / math.sqrt(size) if scale is None else float(scale)
