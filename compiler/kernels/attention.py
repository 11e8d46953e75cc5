"""`npu.paged_attention`: exact attention over paged keys and values with an online softmax.

Work items are (sequence, group of query heads, block of tokens). The query heads of a
group share a KV head, so a row is a (token, query head) pair and one stationary block of
keys serves them all. Keys come in blocks aligned to absolute
positions and in ascending order: a row's result depends on its own sequence only.

Source: FlashAttention-2 (Dao 2023), PagedAttention (Kwon et al. 2023).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.kv import LARGEST_PAGE, layer_base
from opennpu.compiler.kernels.scalars import I64, Index, ceildiv, maximum, minimum
from opennpu.compiler.kernels.tiling import tiles
from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.dialects.symbols import Sym, dim
from opennpu.runtime.chip import Chip
from torch_mlir import ir

MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class Shape:
    """Static parameters of one attention op on one chip.

    `group` query heads go together, `parts` groups share a KV head. `tokens` of a sequence
    form a block of `rows` = tokens·group query rows; keys come `keys` at a time.
    """

    groups: int
    parts: int
    group: int
    d: int
    dv: int
    dtype: str
    tokens: int
    keys: int
    kt: int
    nt: int

    @property
    def rows(self) -> int:
        return self.tokens * self.group

    @staticmethod
    def of(chip: Chip, op: ir.OpView, dtype: str) -> "Shape":
        kv_heads, d, dv = op.kv_heads.value, op.head_dim.value, op.v_head_dim.value
        shared, item = op.heads.value // kv_heads, ITEMSIZE[dtype]
        keys = ceildiv(chip.mx_n, LARGEST_PAGE) * LARGEST_PAGE  # whole pages of any size
        acc_row = 4 * (keys + dv)
        spm_row = item * (d + keys + dv) + 4 * 4
        spm = chip.spm_bytes - 2 * keys * (d + dv) * item
        rows = min(chip.acc_bytes // acc_row, spm // spm_row, chip.mx_n)
        parts = next(
            n for n in range(1, shared + 1) if shared % n == 0 and (shared // n <= rows or n == shared)
        )
        group = shared // parts
        tokens = max(1, rows // group)
        return Shape(kv_heads * parts, parts, group, d, dv, dtype, tokens, keys, chip.mx_k, chip.mx_n)


@dataclass(frozen=True)
class Item:
    """One work item at run time: some tokens of a sequence, one group of query heads."""

    sequence: Index
    group: Index
    row: Index  # of the first token in q
    tokens: Index
    position: Index  # of the first token in its sequence


def emit_paged_attention(ctx: KernelContext, op: ir.OpView) -> None:
    """q[T, H·D] → o[T, H·Dv]."""
    q, table, lens, starts = (movement.materialise(ctx, op, ctx.view(v)) for v in list(op.operands)[:4])
    o = ctx.output(op.o)
    shape = Shape.of(ctx.chip, op, q.dtype)
    with ctx.kernel(op, "paged_attention", bytes=dim(Sym.of(q.bytes) + o.bytes)) as b:
        layer = layer_base(ctx, b, op)
        with _items(b, ctx.chip, shape, lens, starts) as item:
            _attend(b, op, shape, item, q, o, table, layer)


@contextmanager
def _items(b: TileBuilder, chip: Chip, shape: Shape, lens: View, starts: View) -> Iterator[Item]:
    """Deals the items round-robin over groups and blocks, so that neighbours go to different cores."""
    with b.loop(0, b.sym(lens.shape[0])) as sequence:
        begin = b.load_scalar(b.address(starts, sequence), starts.dtype)
        count = b.load_scalar(b.address(starts, sequence + 1), starts.dtype) - begin
        length = b.load_scalar(b.address(lens, sequence), lens.dtype)
        pieces = ceildiv(count, shape.tokens) * shape.groups
        # The first piece of a sequence goes to core `sequence mod cores`.
        shift = (b.core() + sequence * (chip.cores - 1)) % chip.cores
        with b.loop(shift, pieces, chip.cores) as piece:
            first = piece // shape.groups * shape.tokens
            yield Item(
                sequence,
                piece % shape.groups,
                begin + first,
                minimum(shape.tokens, count - first),
                length - count + first,
            )


def _attend(
    b: TileBuilder, op: ir.OpView, shape: Shape, item: Item, q: View, o: View, table: View, layer: Index
):
    """One item: the loop over key blocks, then o / l."""
    rows = item.tokens * shape.group
    queries = _load_queries(b, shape, item, q)
    m, l, alpha = (b.alloc((shape.rows,), "f32") for _ in range(3))  # noqa: E741
    acc = b.alloc((shape.rows, shape.dv), "f32", "acc")
    b.fill(m, MINUS_INFINITY, (rows,))
    b.fill(l, 0.0, (rows,))
    b.fill(acc, 0.0, (rows, shape.dv))
    end = item.position + item.tokens  # the last query row sees the keys before it
    window = op.window.value
    begin = maximum(item.position - (window - 1), 0) // shape.keys * shape.keys if window else 0
    with b.loop(begin, end, shape.keys) as key:
        valid = minimum(shape.keys, end - key)
        k, v = (_gather_block(b, shape, item, table, layer, key, valid, part) for part in ("k", "v"))
        scores = b.alloc((shape.rows, shape.keys), "f32", "acc")
        _product(b, scores, queries, k, "nk", (rows, shape.d, valid), shape)
        p = b.alloc((shape.rows, shape.keys), shape.dtype)
        b.softmax_step(
            p, scores, m, l, alpha, rows=rows, n=valid, scale=op.scale.value, cap=op.logit_cap.value,
            causal=1, group=shape.group, pos=item.position, key=key, window=window,
        )  # fmt: skip
        b.binary("mul", acc, acc, _per_row(alpha), (rows, shape.dv))
        _product(b, acc, p, v, "kn", (rows, valid, shape.dv), shape, accumulate=1)
    out = b.alloc((shape.rows, shape.dv), shape.dtype)
    b.binary("div", out, acc, _per_row(l), (rows, shape.dv))
    _store_rows(b, shape, item, o, out)


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


def _gather_block(
    b: TileBuilder, shape: Shape, item: Item, table: View, layer: Index, key: I64, valid: Index, part: str
) -> TileRef:
    """The pages that hold keys key … key + valid - 1, as a tile [keys][d]."""
    width, pool = (shape.d, layer) if part == "k" else (shape.dv, layer + b.arg("kv:v_offset"))
    page = b.arg("kv:page_size")
    tile = b.alloc((shape.keys, width), shape.dtype)
    row = tile.strides[1]
    b.dma_gather(
        tile,
        pool + b.arg("kv:head_stride") * (item.group // shape.parts),
        index=b.address(table, item.sequence, key // page),
        index_dtype=table.dtype,
        count=ceildiv(valid, page),
        limit=b.arg("kv:slots") // page,
        group_stride=b.arg("kv:page_stride"),
        rows=page,
        row_bytes=row,
        row_stride=b.arg("kv:token_stride"),
        dst_index_stride=page * row,
        dst_row_stride=row,
    )
    return tile


def _load_queries(b: TileBuilder, shape: Shape, item: Item, q: View) -> TileRef:
    """The item's rows of q, [token][query head of the group] by D."""
    tile = b.alloc((shape.rows, shape.d), shape.dtype)
    run = shape.group * tile.strides[1]
    source = b.address(q, item.row, item.group * (shape.group * shape.d))
    b.dma_load(tile, source, (item.tokens,), run, (b.sym(q.strides[0]) * q.itemsize,), (run,))
    return tile


def _store_rows(b: TileBuilder, shape: Shape, item: Item, o: View, tile: TileRef) -> None:
    """The mirror of _load_queries."""
    run = shape.group * tile.strides[1]
    target = b.address(o, item.row, item.group * (shape.group * shape.dv))
    b.dma_store(target, tile, (item.tokens,), run, (run,), (b.sym(o.strides[0]) * o.itemsize,))


def _per_row(vector: TileRef) -> TileRef:
    """A vector [rows] as [rows][every column]."""
    return vector.permuted(vector.strides[2], 0)
