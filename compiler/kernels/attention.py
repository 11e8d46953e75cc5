"""Exact attention with an online softmax: the same loops over key blocks for all attention ops.

What differs between the ops is the list of work items (`attention_items.py`), where keys come from, and a
mask (`attention_keys.py`). What is done with an item is the same (`attention_loops.py`).

Source: FlashAttention-2 (Dao 2023), PagedAttention (Kwon et al. 2023).
"""

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.attention_items import Shape, batched, packed
from opennpu.compiler.kernels.attention_keys import Mask, from_pages, from_tensors
from opennpu.compiler.kernels.attention_loops import HEADS_BEFORE_TOKENS, Attention, attend
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.kv import layer_bases
from opennpu.compiler.kernels.scalars import Index
from opennpu.compiler.kernels.values import View
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from torch_mlir import ir

# ---- the ops


def emit_paged_attention(ctx: KernelContext, op: ir.OpView) -> None:
    """q[T, H·D] → o[T, H·Dv]."""
    heads, kv_heads, d, dv = (
        getattr(op, name).value for name in ("heads", "kv_heads", "head_dim", "v_head_dim")
    )
    table, lens, starts = (
        movement.materialise(ctx, op, ctx.view(v)) for v in (op.block_table, op.seq_lens, op.q_start)
    )
    q = _heads_apart(_dense_rows(ctx, op, ctx.view(op.q)), heads, d)
    o = _heads_apart(ctx.output(op.o), heads, dv)
    shape = Shape.of(ctx.chip, heads, kv_heads, d, dv, q.dtype)
    with ctx.kernel(op, "paged_attention", bytes=_bytes(q, o)) as b:
        attention = Attention(
            shape,
            q,
            o,
            from_pages(b, shape, table, layer_bases(ctx, b, op)),
            scale=op.scale.value,
            cap=op.logit_cap.value,
            window=op.window.value,
        )

        def keys_of(sequence: Index) -> tuple[Index, Index]:
            return 0, b.load_scalar(b.address(lens, sequence), lens.dtype)

        packed(b, ctx.chip, shape, starts, keys_of, attend(b, attention))


def emit_varlen_attention(ctx: KernelContext, op: ir.OpView) -> None:
    """q[Tq, H, D], k[Tk, Hkv, D], v[Tk, Hkv, Dv] → o[Tq, H, Dv]."""
    q, k, v = (_batch_of_one(_dense_rows(ctx, op, ctx.view(x))) for x in (op.q, op.k, op.v))
    q_start, k_start = (movement.materialise(ctx, op, ctx.view(x)) for x in (op.q_start, op.k_start))
    o = _batch_of_one(ctx.output(op.o, strided=True))
    shape = _shape(ctx, q, k, v)
    with ctx.kernel(op, "varlen_attention", bytes=_bytes(q, k, v, o)) as b:
        attention = Attention(
            shape,
            q,
            o,
            from_tensors(b, shape, k, v),
            scale=op.scale.value,
            cap=op.logit_cap.value,
            causal=bool(op.causal.value),
            window=op.window.value,
        )

        def keys_of(sequence: Index) -> tuple[Index, Index]:
            first, end = (
                b.load_scalar(b.address(k_start, at), k_start.dtype) for at in (sequence, sequence + 1)
            )
            return first, end - first

        packed(b, ctx.chip, shape, q_start, keys_of, attend(b, attention))


def emit_dense_attention(ctx: KernelContext, op: ir.OpView) -> None:
    """q[B, H, Tq, D], k[B, Hkv, Tk, D], v[B, Hkv, Tk, Dv] → o[B, H, Tq, Dv]."""
    q, k, v = (_dense_rows(ctx, op, ctx.view(x)) for x in (op.q, op.k, op.v))
    mask = Mask(ctx.view(op.mask), op.scale.value) if op.mask is not None else None
    o = ctx.output(op.o, strided=True, order=HEADS_BEFORE_TOKENS)
    if 0 in o.shape:
        return
    shape = _shape(ctx, q, k, v, mask)
    causal = bool(op.causal.value)
    with ctx.kernel(op, "dense_attention", _flops(q, k, v, causal), _bytes(q, k, v, o)) as b:
        attention = Attention(
            shape,
            q,
            o,
            from_tensors(b, shape, k, v),
            scale=op.scale.value,
            causal=causal,
            mask=mask,
        )
        batched(b, ctx.chip, shape, q, k, attend(b, attention))


EMITTERS = {
    "npu.paged_attention": emit_paged_attention,
    "npu.varlen_attention": emit_varlen_attention,
    "npu.dense_attention": emit_dense_attention,
}


# ---- tensors as the loops want them


def _dense_rows(ctx: KernelContext, op: ir.OpView, view: View) -> View:
    """The view where its last dimension is dense, else a copy."""
    return view if view.strides[-1] == 1 else movement.materialise(ctx, op, view)


def _heads_apart(view: View, heads: int, width: int) -> View:
    """[T, H·D] as [1, H, T, D]."""
    return _batch_of_one(views.reshape(view, (view.shape[0], heads, width)))


def _batch_of_one(view: View) -> View:
    """[T, H, D] as [1, H, T, D]."""
    return views.unsqueeze(views.transpose(view, (1, 0, 2)), 0)


def _shape(ctx: KernelContext, q: View, k: View, v: View, mask: Mask | None = None) -> Shape:
    heads, kv_heads, d, dv = q.shape[1], k.shape[1], q.shape[3], v.shape[3]
    return Shape.of(ctx.chip, heads, kv_heads, d, dv, q.dtype, mask and mask.view.dtype)


def _flops(q: View, k: View, v: View, causal: bool) -> Dim:
    """Of both products, halved where half of the keys are not seen."""
    pairs = num_elements((*q.shape[:3], k.shape[2]))
    return views.times(pairs, (1 if causal else 2) * (q.shape[3] + v.shape[3]))


def _bytes(*tensors: View) -> Dim:
    return dim(sum(Sym.of(x.bytes) for x in tensors))
