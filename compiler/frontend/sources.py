"""What the program of an operator is traced from, where that is not the operator as it is.

A program has one number of heads and one size of them, so attention takes these as numbers.
Pages are no tensors of a program; its launch brings them: operators that take them as tensors
become `opennpu::paged_attention`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from opennpu.compiler.frontend import ops
from opennpu.compiler.frontend.ops.attention import softmax_scale_of
from opennpu.compiler.frontend.ops.radix_attention import decode_shapes, extend_shapes
from torch import Tensor


@dataclass(frozen=True)
class Source:
    """A function of the operator's arguments; the inputs (`arg3`) that are the launch's keys and values."""

    function: Callable
    pages: tuple[str, ...] = ()


def _scaled_dot_product_attention(q, k, v, *args, **options):
    for x in (q, k, v):
        _numbers(x, *((-3, -1) if x.dim() > 3 else (-1,)))
    return torch.ops.aten.scaled_dot_product_attention.default(q, k, v, *args, **options)


def _flash_attention(q, k, v, *args, **options):
    for x in (q, k, v):
        _numbers(x, 1, 2)
    return ops.flash_attention(q, k, v, *args, **options)


def _radix_attention_extend(*args, **options):
    extend_shapes(*args, **options)
    return _write_and_attend(*args, **options)


def _radix_attention_decode(q, *args, **options):
    decode_shapes(q, *args, **options)
    return _write_and_attend(q, *args, torch.arange(q.shape[0] + 1, device=q.device), **options)


def _write_and_attend(
    q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens, cu_seqlens_q,
    *, softmax_scale=None, window_left=-1, softcap=0.0,
):  # fmt: skip
    (heads, head_dim), (kv_heads, v_head_dim) = _numbers(q, 1, 2), _numbers(v, 1, 2)
    o = ops.paged_attention(
        *(x.flatten(1) for x in (q, k, v)),
        slot_mapping,
        block_table,
        seq_lens,
        cu_seqlens_q,
        layer=0,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        v_head_dim=v_head_dim,
        scale=softmax_scale_of(softmax_scale, q),
        logit_cap=softcap,
        window=window_left + 1,
    )
    return o.unflatten(1, (heads, v_head_dim))


def _index_put(x, indices, values, accumulate=False):
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [indices[axis] for axis in axes]
    if axes[-1] - axes[0] < len(axes) and not any(index.dtype == torch.bool for index in given):
        # PyTorch's meta implementation says nothing of how many values there are.
        chosen = torch.broadcast_shapes(*(index.shape for index in given))
        values = values.expand(*x.shape[: axes[0]], *chosen, *x.shape[axes[-1] + 1 :])
    return torch.ops.aten.index_put.default(x, indices, values, accumulate)


PAGES = ("arg3", "arg4")

SOURCES: dict[str, Source] = {
    "aten.index_put": Source(_index_put),
    "aten.scaled_dot_product_attention": Source(_scaled_dot_product_attention),
    "opennpu.flash_attention": Source(_flash_attention),
    "opennpu.radix_attention_extend": Source(_radix_attention_extend, PAGES),
    "opennpu.radix_attention_decode": Source(_radix_attention_decode, PAGES),
}


def _numbers(x: Tensor, *dims: int) -> list[int]:
    """Extents as numbers: tracing takes them for static."""
    return [int(x.shape[dim]) for dim in dims]
