"""Exact attention with an online softmax: one loop over key blocks for all attention ops.

The query heads of a group share a KV head, so a row is a (token, query head) pair and one
stationary block of keys serves them all. What differs between the ops is the list of work
items (`attention_items.py`), where keys come from, and a mask (`attention_keys.py`).

Source: FlashAttention-2 (Dao 2023), PagedAttention (Kwon et al. 2023).
"""

from dataclasses import dataclass

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.attention_items import Item, Shape, batched, packed
from opennpu.compiler.kernels.attention_keys import MINUS_INFINITY, KeySource, Mask, from_pages, from_tensors
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.kv import layer_bases
from opennpu.compiler.kernels.scalars import Index, maximum, minimum
from opennpu.compiler.kernels.tiling import tiles
from opennpu.compiler.kernels.values import View
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from torch_mlir import ir

HEADS_BEFORE_TOKENS = (0, 2, 1, 3)


@dataclass(frozen=True)
class Attention:
    """What an item is computed from; q and o are [batch, head, token, dim]."""

    shape: Shape
    q: View
    o: View
    keys: KeySource
    scale: float
    cap: float = 0.0
    causal: bool = True
    window: int = 0
    mask: Mask | None = None


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

        with packed(b, ctx.chip, shape, starts, keys_of) as item:
            _attend(b, attention, item)


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

        with packed(b, ctx.chip, shape, q_start, keys_of) as item:
            _attend(b, attention, item)


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
        with batched(b, ctx.chip, shape, q, k) as item:
            _attend(b, attention, item)


EMITTERS = {
    "npu.paged_attention": emit_paged_attention,
    "npu.varlen_attention": emit_varlen_attention,
    "npu.dense_attention": emit_dense_attention,
}


# ---- one item


def _attend(b: TileBuilder, attention: Attention, item: Item) -> None:
    """The loop over key blocks, then o / l; l is 0, and so is o, where no key was seen, else at least 1."""
    shape, mask = attention.shape, attention.mask
    rows = item.tokens * shape.group
    queries = b.alloc((shape.rows, shape.d), shape.dtype)
    view, start, tile, extents = _block(shape, item, attention.q, queries)
    b.load(tile, view, start, extents)
    m, l, alpha = (b.alloc((shape.rows,), "f32") for _ in range(3))  # noqa: E741
    acc = b.alloc((shape.rows, shape.dv), "f32", "acc")
    b.fill(m, MINUS_INFINITY, (rows,))
    b.fill(l, 0.0, (rows,))
    b.fill(acc, 0.0, (rows, shape.dv))
    begin, end = _seen(attention, item)
    with b.loop(begin, end, shape.keys) as key:
        valid = minimum(shape.keys, end - key)
        k, v = attention.keys(item, key, valid)
        scores = b.alloc((shape.rows, shape.keys), "f32", "acc")
        _product(b, scores, queries, k, "nk", (rows, shape.d, valid), shape)
        if mask:
            mask.apply(b, shape, item, scores, key, valid)
        p = b.alloc((shape.rows, shape.keys), shape.dtype)
        b.softmax_step(
            p, scores, m, l, alpha, rows=rows, n=valid,
            scale=1.0 if mask and mask.scales else attention.scale, cap=attention.cap,
            causal=int(attention.causal), group=shape.group, pos=item.position, key=key,
            window=attention.window,
        )  # fmt: skip
        b.binary("mul", acc, acc, _per_row(alpha), (rows, shape.dv))
        _product(b, acc, p, v, "kn", (rows, valid, shape.dv), shape, accumulate=1)
    one, out = b.alloc((1,), "f32"), b.alloc((shape.rows, shape.dv), shape.dtype)
    b.fill(one, 1.0, (1,))
    b.binary("max", l, l, one.broadcast(-1), (rows,))
    b.binary("div", out, acc, _per_row(l), (rows, shape.dv))
    view, start, tile, extents = _block(shape, item, attention.o, out)
    b.store(view, start, tile, extents)


def _seen(attention: Attention, item: Item) -> tuple[Index, Index]:
    """The keys from the first block that a row of the item sees, to the last one that any sees."""
    window, block = attention.window, attention.shape.keys
    end = minimum(item.keys, item.position + item.tokens) if attention.causal else item.keys
    begin = maximum(item.position - (window - 1), 0) // block * block if window else 0
    return begin, end


def _product(
    b: TileBuilder,
    dst: TileRef,
    x: TileRef,
    w: TileRef,
    layout: str,
    extents,
    shape: Shape,
    accumulate: int = 0,
) -> None:
    """dst[rows][n] (+)= x[rows][k] · w, by stationary tiles; w, [k][n] or [n][k], bounds both."""
    rows, k, n = extents
    most_k, most_n = w.shape if layout == "kn" else w.shape[::-1]
    with tiles(b, n, shape.nt, most_n) as (column, width), tiles(b, k, shape.kt, most_k) as (depth, height):
        at = (depth, column) if layout == "kn" else (column, depth)
        b.mx_load(w.at(*at), layout, height, width, w.strides[1])
        b.mx_mul(dst.at(0, column), x.at(0, depth), rows, accumulate=accumulate or depth)


def _per_row(vector: TileRef) -> TileRef:
    """A vector [rows] as [rows][every column]."""
    return vector.permuted(vector.strides[2], 0)


# ---- tensors as the loop wants them


def _block(shape: Shape, item: Item, view: View, tile: TileRef):
    """Where the item's rows lie in q or o and in a tile [token, head of the group][dim].

    A view, the index of its first element, the tile, extents. Heads that lie side by side in
    HBM are one run.
    """
    view = views.transpose(view, HEADS_BEFORE_TOKENS)
    batch, tokens, heads, width = view.shape
    row, element = tile.strides[1:]
    runs = views.reshape(view, (batch, tokens, heads * width))
    if runs is not None:
        start = (item.batch, item.row, item.head(shape) * width)
        return runs, start, tile.permuted(shape.group * row, element), (item.tokens, shape.group * width)
    start = (item.batch, item.row, item.head(shape), 0)
    return view, start, tile.permuted(shape.group * row, row, element), (item.tokens, shape.group, width)


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
