"""Rotary position embedding (Su et al. 2021), alone and fused with the KV write.

The cosines and sines of a token are gathered by its position; heads rotate in place, in
f32, and are rounded once.
"""

from dataclasses import dataclass, replace

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.kv import layer_bases, scatter_heads
from opennpu.compiler.kernels.scalars import Index
from opennpu.compiler.kernels.tiling import core_rows, row_block
from opennpu.compiler.kernels.values import View
from opennpu.dialects.symbols import Dim, Sym, dim
from torch_mlir import ir


def emit_rope(ctx: KernelContext, op: ir.OpView) -> None:
    """x[T, H·D] → y; every core takes blocks of tokens."""
    x, y = ctx.view(op.x), ctx.output(op.y)
    rotation = Rotation.of(ctx, op)
    tokens, width = x.shape
    heads, nbytes = width // op.head_dim.value, dim(Sym.of(x.bytes) + y.bytes)
    block = row_block(ctx.chip, width * x.itemsize + rotation.row_bytes(heads))
    with (
        ctx.kernel(op, "rope", rotation.flops(tokens, heads), nbytes) as b,
        core_rows(b, ctx.chip, b.sym(tokens), block) as (start, rows),
    ):
        tile = b.alloc((block, width), x.dtype)
        b.load(tile, x, (start, 0), (rows, width))
        rotation.emit(b, _heads(tile, op.head_dim.value), block, start, rows, heads)
        b.store(y, (start, 0), tile, (rows, width))


def emit_rope_kv_write(ctx: KernelContext, op: ir.OpView) -> None:
    """qkv[T, (H + Hkv)·D + Hkv·Dv] → q[T, H·D] and the pages."""
    qkv, q = ctx.view(op.qkv), ctx.output(op.q)
    slots = movement.materialise(ctx, op, ctx.view(op.slots))
    rotation = Rotation.of(ctx, op)
    tokens, width = qkv.shape
    heads, kv_heads, d, dv = (a.value for a in (op.heads, op.kv_heads, op.head_dim, op.v_head_dim))
    rotating = heads + kv_heads
    block = row_block(ctx.chip, width * qkv.itemsize + rotation.row_bytes(rotating))
    flops, nbytes = rotation.flops(tokens, rotating), dim(2 * Sym.of(qkv.bytes))
    with ctx.kernel(op, "rope_kv_write", flops, nbytes) as b:
        k_base, v_base = layer_bases(ctx, b, op)
        with core_rows(b, ctx.chip, b.sym(tokens), block) as (start, rows):
            tile = b.alloc((block, width), qkv.dtype)
            b.load(tile, qkv, (start, 0), (rows, width))
            rotation.emit(b, _heads(tile, d), block, start, rows, rotating)
            b.store(q, (start, 0), tile, (rows, heads * d))
            keys, values = _heads(tile.at(heads * d), d), _heads(tile.at(rotating * d), dv)
            scatter_heads(b, keys, k_base, slots, start, rows, kv_heads)
            scatter_heads(b, values, v_base, slots, start, rows, kv_heads)


@dataclass(frozen=True)
class Rotation:
    """How heads rotate: cos|sin rows of `cache`, picked by `positions`; pairs as in `npu.rope`."""

    positions: View
    cache: View
    neox: bool

    @staticmethod
    def of(ctx: KernelContext, op: ir.OpView) -> "Rotation":
        positions, cache = (movement.materialise(ctx, op, ctx.view(v)) for v in (op.positions, op.cache))
        return Rotation(positions, cache, bool(op.neox.value))

    @property
    def half(self) -> int:
        """R / 2: how many pairs of a head rotate."""
        return self.cache.shape[1] // 2

    def row_bytes(self, heads: int) -> int:
        """Of the tiles that `emit` needs for a token."""
        return 2 * self.half * self.cache.itemsize + 2 * heads * self.half * 4

    def flops(self, tokens: Dim, heads: int) -> Dim:
        return dim(Sym.of(tokens) * (6 * heads * self.half))

    def emit(self, b: TileBuilder, x: TileRef, block: int, start: Index, rows: Index, heads: int) -> None:
        """Rotates tile x [block][heads][D] in place: (x1, x2) ← (x1·cos - x2·sin, x2·cos + x1·sin)."""
        cos, sin = self._load(b, block, start, rows)
        extents = (rows, heads, self.half)
        row, head, element = x.strides
        distance, step = (self.half, 1) if self.neox else (1, 2)
        x1, x2 = (replace(x.at(i), strides=(row, head, step * element)) for i in (0, distance))
        y1, t = (b.alloc((block, heads, self.half), "f32") for _ in range(2))
        b.binary("mul", y1, x1, cos, extents)
        b.binary("mul", t, x2, sin, extents)
        b.binary("sub", y1, y1, t, extents)
        b.binary("mul", t, x1, sin, extents)
        b.copy(x1, y1, extents)
        b.binary("mul", y1, x2, cos, extents)
        b.binary("add", x2, y1, t, extents)

    def _load(self, b: TileBuilder, block: int, start: Index, rows: Index) -> tuple[TileRef, TileRef]:
        """Cosines and sines of tokens start…, each [block][every head][R / 2]."""
        tile = b.alloc((block, 2 * self.half), self.cache.dtype)
        _, row, element = tile.strides
        b.dma_gather(
            tile,
            b.address(self.cache),
            index=b.address(self.positions, start),
            index_dtype=self.positions.dtype,
            count=rows,
            limit=b.sym(self.cache.shape[0]),
            group_stride=row,
            row_bytes=row,
            dst_index_stride=row,
        )
        cos = tile.permuted(row, 0, element)
        return cos, cos.at(self.half)


def _heads(tile: TileRef, head_dim: int) -> TileRef:
    """A tile [rows][width] as [rows][heads][head_dim]."""
    _, row, element = tile.strides
    return tile.permuted(row, head_dim * element, element)
