"""Where attention's keys, values and masks come from: pages of the KV cache, or strided tensors.

Views are [batch, head, token, dim], of a mask [batch, head, token, key].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.attention_items import Item, Shape
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.scalars import Index, ceildiv
from opennpu.compiler.kernels.values import View

MINUS_INFINITY = float("-inf")

KeySource = Callable[[Item, Index, Index], TileRef]
"""(item, first key, number of keys ≤ shape.keys) → their rows [keys][width], of k or of v."""


def from_tensors(b: TileBuilder, shape: Shape, k: View, v: View) -> tuple[KeySource, KeySource]:
    """Rows of k and of v; the last dimension of both is dense."""

    def load(view: View, item: Item, key: Index, count: Index) -> TileRef:
        tile = b.alloc((shape.keys, view.shape[3]), view.dtype)
        start = (item.batch, item.kv_head(shape), item.first_key + key, 0)
        b.load(tile, view, start, (count, view.shape[3]))
        return tile

    return partial(load, k), partial(load, v)


def from_pages(
    b: TileBuilder, shape: Shape, table: View, bases: tuple[Index, Index]
) -> tuple[KeySource, KeySource]:
    """The pages that the sequence's row of the block table names; `bases` as in `kv.layer_bases`."""
    page = b.arg("kv:page_size")

    def gather(base: Index, width: int, item: Item, key: Index, count: Index) -> TileRef:
        tile = b.alloc((shape.keys, width), shape.dtype)
        row = tile.strides[1]
        b.dma_gather(
            tile,
            base + b.arg("kv:head_stride") * item.kv_head(shape),
            index=b.address(table, item.sequence, key // page),
            index_dtype=table.dtype,
            count=ceildiv(count, page),
            limit=b.arg("kv:slots") // page,
            group_stride=b.arg("kv:page_stride"),
            rows=page,
            row_bytes=row,
            row_stride=b.arg("kv:token_stride"),
            dst_index_stride=page * row,
            dst_row_stride=row,
        )
        return tile

    k_base, v_base = bases
    return partial(gather, k_base, shape.d), partial(gather, v_base, shape.dv)


@dataclass(frozen=True)
class Mask:
    """A mask in HBM; dimensions that it repeats along have stride 0 and are loaded once."""

    view: View
    scale: float

    @property
    def scales(self) -> bool:
        """Whether `apply` also scales: a sum comes after, and -inf must stay the least."""
        return self.view.dtype != "bool" or self.scale <= 0

    def apply(
        self, b: TileBuilder, shape: Shape, item: Item, scores: TileRef, key: Index, count: Index
    ) -> None:
        """scores [rows][keys]: hides or adds in place."""
        dims = (item.tokens, shape.group, count)
        row, element = scores.strides[1:]
        scores = scores.permuted(shape.group * row, row, element)
        if self.scales:
            b.binary("mul", scores, scores, _number(b, self.scale), dims)
        tile = self._load(b, shape, item, key, dims)
        if self.view.dtype == "bool":
            b.select(scores, tile, scores, _number(b, MINUS_INFINITY), dims)
        else:
            b.binary("add", scores, scores, tile, dims)

    def _load(self, b: TileBuilder, shape: Shape, item: Item, key: Index, dims) -> TileRef:
        """The part of the mask that lies on [token][head][key] of the block."""
        view = views.transpose(self.view, (0, 2, 1, 3))
        repeated = [d for d in range(3) if view.strides[1 + d] == 0]
        once = lambda extents: [1 if d in repeated else n for d, n in enumerate(extents)]  # noqa: E731
        tile = b.alloc(once((shape.tokens, shape.group, shape.keys)), view.dtype)
        b.load(tile, view, (item.batch, item.row, item.head(shape), key), once(dims))
        return tile.broadcast(*repeated)


def _number(b: TileBuilder, value: float) -> TileRef:
    """The number, repeated."""
    tile = b.alloc((1,), "f32")
    b.fill(tile, value, (1,))
    return tile.broadcast(0, 1, 2)
