"""RadixAttention: paged keys and values, a prefix already in its pages, new tokens written.

The contract of SGLang's attention layers (Zheng et al. 2024). The caches may be views of a page
pool, or tensors of their own; what the device asks of them: docs/torch_device.md.
"""

import torch
from opennpu.compiler.frontend.ops.attention import (
    Scores,
    attend_pages,
    check_heads,
    check_scores,
    softmax_scale_of,
    write_pages,
)
from opennpu.compiler.frontend.ops.library import INTEGERS, check_dtype, check_rank, check_shape, operator
from torch import Tensor

SHARED = (
    "Tensor q, Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor slot_mapping,"
    " Tensor block_table, Tensor seq_lens"
)
OPTIONS = "float? softmax_scale=None, int window_left=-1, float softcap=0.0"


# ---- prefill


def extend_shapes(
    q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens, cu_seqlens_q,
    *, softmax_scale=None, window_left=-1, softcap=0.0,
):  # fmt: skip
    name = "radix_attention_extend"
    check_dtype(name, "cu_seqlens_q", cu_seqlens_q, INTEGERS)
    check_shape(name, "cu_seqlens_q", cu_seqlens_q, (seq_lens.shape[0] + 1,))
    return _checked(
        name, q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens, window_left, softcap
    )


@operator(f"radix_attention_extend({SHARED}, Tensor cu_seqlens_q, *, {OPTIONS}) -> Tensor", extend_shapes)
def radix_attention_extend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    cu_seqlens_q: Tensor,
    *,
    softmax_scale: float | None = None,
    window_left: int = -1,
    softcap: float = 0.0,
) -> Tensor:
    """Writes new tokens' keys and values into their pages; attends causally over prefix and new tokens.

    q[T, H, D], k[T, Hkv, D], v[T, Hkv, Dv], float32 or bfloat16, any strides, H a multiple of Hkv:
    the new tokens of all sequences, one sequence behind the other, sequence b's in rows
    cu_seqlens_q[b] … cu_seqlens_q[b + 1] - 1. k_cache[pages, page_size, Hkv, D],
    v_cache[pages, page_size, Hkv, Dv] of q's dtype: pages of which block_table[B, P] names those
    of each sequence in order; page_size divides 128. Token r goes to slot
    slot_mapping[r] = page · page_size + place in the page; the slots differ. seq_lens[B]:
    tokens of each sequence, the new ones, its last, included. Integers are int32 or int64.
    → [T, H, Dv] of q's dtype, undefined for rows of no sequence.

    softmax_scale, window_left and softcap as in `flash_attention`. TypeError for another dtype,
    ValueError for another shape, window or cap; on the device IndexError or a trap for a page
    that does not exist.
    """
    write_pages((k_cache, v_cache), slot_mapping, k, v)
    scores = Scores(softmax_scale_of(softmax_scale, q), softcap, window_left=window_left)
    return attend_pages(scores, q, (k_cache, v_cache), block_table, seq_lens, cu_seqlens_q)


# ---- decode


def decode_shapes(
    q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens,
    *, softmax_scale=None, window_left=-1, softcap=0.0,
):  # fmt: skip
    name = "radix_attention_decode"
    check_shape(name, "seq_lens", seq_lens, q.shape[:1])
    return _checked(
        name, q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens, window_left, softcap
    )


@operator(f"radix_attention_decode({SHARED}, *, {OPTIONS}) -> Tensor", decode_shapes)
def radix_attention_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    *,
    softmax_scale: float | None = None,
    window_left: int = -1,
    softcap: float = 0.0,
) -> Tensor:
    """`radix_attention_extend` for one new token a sequence: row b belongs to sequence b, T = B."""
    return radix_attention_extend(
        q,
        k,
        v,
        k_cache,
        v_cache,
        slot_mapping,
        block_table,
        seq_lens,
        torch.arange(q.shape[0] + 1),
        softmax_scale=softmax_scale,
        window_left=window_left,
        softcap=softcap,
    )


# ---- checks


def _checked(op, q, k, v, k_cache, v_cache, slot_mapping, block_table, seq_lens, window_left, softcap):
    """Checks what both operators share; the empty result."""
    check_heads(op, q, k, v, tokens=q.shape[0])
    for name, cache, rows in (("k_cache", k_cache, k), ("v_cache", v_cache, v)):
        check_dtype(op, name, cache, [q.dtype])
        check_rank(op, name, cache, 4, 4)
        check_shape(op, name, cache, (*k_cache.shape[:2], *rows.shape[1:]))
    for name, x, shape in (
        ("slot_mapping", slot_mapping, q.shape[:1]),
        ("seq_lens", seq_lens, seq_lens.shape[:1]),
        ("block_table", block_table, (*seq_lens.shape[:1], *block_table.shape[-1:])),
    ):
        check_dtype(op, name, x, INTEGERS)
        check_shape(op, name, x, shape)
    check_scores(op, window_left, softcap)
    return q.new_empty(*q.shape[:2], v.shape[2])
