"""What a core does for an item of attention: loops over key blocks with an online softmax.

The query heads of a group share a KV head, so a row is a (token, query head) pair and one
stationary block of keys serves them all. The loops work on all units at once: while the vector unit is at
the softmax of some rows, the matrix unit has products of others to do.

Source: FlashAttention-2 (Dao 2023).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.attention_items import Item, Shape
from opennpu.compiler.kernels.attention_keys import MINUS_INFINITY, KeySource, Mask
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.scalars import Index, compare, maximum, minimum
from opennpu.compiler.kernels.tiling import tiles
from opennpu.compiler.kernels.values import View

HEADS_BEFORE_TOKENS = (0, 2, 1, 3)


@dataclass(frozen=True)
class Attention:
    """What an item is computed from; q and o are [batch, head, token, dim]."""

    shape: Shape
    q: View
    o: View
    keys: tuple[KeySource, KeySource]  # and values
    scale: float
    cap: float = 0.0
    causal: bool = True
    window: int = 0
    mask: Mask | None = None


@dataclass(frozen=True)
class Rows:
    """A block of an item's tokens: its rows go through the units together."""

    item: Item  # of these tokens only
    count: Index
    end: Index  # of the keys that one of them sees
    q: TileRef
    p: TileRef
    acc: TileRef
    m: TileRef
    l: TileRef  # noqa: E741
    alpha: TileRef

    def seen(self, shape: Shape, key: Index) -> Index:
        """How many keys of the block at `key` they see."""
        return maximum(minimum(shape.keys, self.end - key), 0)


def attend(b: TileBuilder, attention: Attention) -> Callable[[Item, int], None]:
    """What makes the code of an item of up to so many blocks of tokens."""
    shape = attention.shape
    scores = [b.alloc((shape.rows, shape.keys), "f32", "acc") for _ in range(shape.scores)]
    sums = [b.alloc((shape.rows, shape.dv), "f32", "acc") for _ in range(shape.blocks)]
    one = b.alloc((1,), "f32")
    b.fill(one, 1.0, (1,))

    def make(item: Item, blocks: int) -> None:
        begin, end = _seen(attention, item)
        m, l, alpha = (b.alloc((blocks * shape.rows,), "f32") for _ in range(3))  # noqa: E741
        rows = []
        for i, acc in enumerate(sums[:blocks]):
            part, at = _part(shape, item, i), i * shape.rows
            end_of_part = begin + (_seen(attention, part)[1] - begin) * minimum(part.tokens, 1)
            q, p = (b.alloc((shape.rows, width), shape.dtype) for width in (shape.d, shape.keys))
            state = (vector.at(at) for vector in (m, l, alpha))
            rows.append(Rows(part, part.tokens * shape.group, end_of_part, q, p, acc, *state))
        whole = (item.tokens * shape.group,)
        b.fill(m, MINUS_INFINITY, whole)
        b.fill(l, 0.0, whole)
        out = b.alloc((blocks * shape.rows, shape.dv), shape.dtype)

        def finish(i: int) -> None:
            """out = acc / l, 0 where no key was seen: l is 0 there, else at least 1."""
            if i == 0:
                b.binary("max", l, l, one.broadcast(-1), whole)
                b.unary("recip", l, l, whole)
            _divide(b, shape, rows[i], out.at(i * shape.rows, 0), begin)

        loop = _one_block if blocks == 1 else _many_blocks
        loop(b, attention, item, rows, scores, (begin, maximum(begin, end)), finish)
        view, start, tile, extents = _block(shape, item, attention.o, out)
        b.store(view, start, tile, extents)

    return make


def _one_block(b: TileBuilder, attention: Attention, item: Item, blocks, scores, bounds, finish) -> None:
    """A block of rows; blocks of keys take turns with the scores.

    The scores of the next block are on their way before the values of this one are added: the latency of one
    product passes beside that of the other.
    """
    shape, (rows,), (begin, end) = attention.shape, blocks, bounds
    turns = [rows, *(replace(rows, p=b.alloc((shape.rows, shape.keys), shape.dtype)) for _ in scores[1:])]
    load_keys, load_values = attention.keys

    def score(s: TileRef, key: Index) -> None:
        count = maximum(minimum(shape.keys, end - key), 0)
        _score(b, shape, rows, s, load_keys(item, key, count), count)

    _load_queries(b, attention, rows)
    score(scores[0], begin)
    with b.loop(begin, end, shape.keys * len(scores)) as first:
        for i, (turn, s) in enumerate(zip(turns, scores, strict=True)):
            key = first + i * shape.keys
            count = maximum(minimum(shape.keys, end - key), 0)
            _softmax(b, attention, turn, s, begin, key, count)
            score(scores[(i + 1) % len(scores)], key + shape.keys)
            _add_values(b, shape, turn, load_values(item, key, count), count, key - begin)
    finish(0)


def _many_blocks(b: TileBuilder, attention: Attention, item: Item, blocks, scores, bounds, finish) -> None:
    """Every block of keys serves all blocks of rows.

    Values come one block later than keys, so that the products with them wait for no softmax but older ones.
    Queries come after the first keys, the sooner are there scores.
    """
    shape, (begin, end) = attention.shape, bounds
    load_keys, load_values = attention.keys
    ahead = int(len(blocks) > 2)
    with b.loop(begin, end + shape.keys, shape.keys) as key:
        before = key - shape.keys
        k = load_keys(item, key, maximum(minimum(shape.keys, end - key), 0))
        for rows in blocks:
            with b.first_time(key, begin):
                _load_queries(b, attention, rows)
        v = load_values(item, maximum(before, 0), minimum(minimum(shape.keys, end - before), key - begin))
        for i, rows in enumerate(blocks):
            for ready in blocks[i + ahead if i else 0 : i + ahead + 1]:
                count = minimum(ready.seen(shape, before), key - begin)
                _add_values(b, shape, ready, v, count, before - begin)
            s, count = scores[i % len(scores)], rows.seen(shape, key)
            _score(b, shape, rows, s, k, count)
            _softmax(b, attention, rows, s, begin, key, count)
            with b.if_(compare(key, "sge", end)):
                finish(i)


# ---- steps


def _score(b: TileBuilder, shape: Shape, rows: Rows, s: TileRef, k: TileRef, keys: Index) -> None:
    """s = q · kᵀ."""
    _product(b, s, rows.q, k, "nk", (rows.count, shape.d, keys), shape)


def _softmax(
    b: TileBuilder, attention: Attention, rows: Rows, s: TileRef, begin: Index, key: Index, keys: Index
) -> None:
    """s → p; what is in acc is scaled."""
    shape, mask = attention.shape, attention.mask
    with b.if_(compare(keys, "sgt", 0)):
        if mask:
            mask.apply(b, shape, rows.item, s, key, keys)
        b.softmax_step(
            rows.p, s, rows.m, rows.l, rows.alpha, rows=rows.count, n=keys,
            scale=1.0 if mask and mask.scales else attention.scale, cap=attention.cap,
            causal=int(attention.causal), group=shape.group, pos=rows.item.position, key=key,
            window=attention.window,
        )  # fmt: skip
    with b.if_(compare(minimum(keys, key - begin), "sgt", 0)):  # the softmax need not wait for what is in acc
        b.binary("mul", rows.acc, rows.acc, _per_row(rows.alpha), (rows.count, shape.dv))


def _add_values(b: TileBuilder, shape: Shape, rows: Rows, v: TileRef, keys: Index, accumulate: Index) -> None:
    """acc (+)= p · v."""
    _product(b, rows.acc, rows.p, v, "kn", (rows.count, keys, shape.dv), shape, accumulate)


def _divide(b: TileBuilder, shape: Shape, rows: Rows, out: TileRef, begin: Index) -> None:
    """out = acc · l, which is the reciprocal now; 0 where no row saw a key."""
    with b.if_(compare(rows.end, "sgt", begin)):
        b.binary("mul", out, rows.acc, _per_row(rows.l), (rows.count, shape.dv))
    with b.if_(compare(rows.end, "sle", begin)):
        b.fill(out, 0.0, (rows.count, shape.dv))


def _product(
    b: TileBuilder,
    dst: TileRef,
    x: TileRef,
    w: TileRef,
    layout: str,
    extents,
    shape: Shape,
    accumulate: Index = 0,
) -> None:
    """dst[rows][n] (+)= x[rows][k] · w, by stationary tiles; w, [k][n] or [n][k], bounds both."""
    rows, k, n = extents
    most_k, most_n = w.shape if layout == "kn" else w.shape[::-1]
    with tiles(b, n, shape.nt, most_n) as (column, width), tiles(b, k, shape.kt, most_k) as (depth, height):
        at = (depth, column) if layout == "kn" else (column, depth)
        b.mx_load(w.at(*at), layout, height, width, w.strides[1])
        b.mx_mul(dst.at(0, column), x.at(0, depth), rows, accumulate=accumulate + depth)


def _per_row(vector: TileRef) -> TileRef:
    """A vector [rows] as [rows][every column]."""
    return vector.permuted(vector.strides[2], 0)


# ---- an item and its blocks


def _seen(attention: Attention, item: Item) -> tuple[Index, Index]:
    """The keys from the first block that a row of the item sees, to the last one that any sees."""
    window, block = attention.window, attention.shape.keys
    end = minimum(item.keys, item.position + item.tokens) if attention.causal else item.keys
    begin = maximum(item.position - (window - 1), 0) // block * block if window else 0
    return begin, end


def _part(shape: Shape, item: Item, number: int) -> Item:
    """A block of the item's tokens, none where the item has fewer."""
    first = number * shape.tokens
    tokens = maximum(minimum(shape.tokens, item.tokens - first), 0)
    return replace(item, row=item.row + first, tokens=tokens, position=item.position + first)


def _load_queries(b: TileBuilder, attention: Attention, rows: Rows) -> None:
    view, start, tile, extents = _block(attention.shape, rows.item, attention.q, rows.q)
    b.load(tile, view, start, extents)


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
