"""Rotary embedding and paged attention.

The KV cache is no SSA value: it is the chip's page memory, which these ops read and
write (`ReadsKV`, `WritesKV`). T tokens, B sequences, P pages a sequence, D = `head_dim`,
Dv = `v_head_dim`.
"""

from opennpu.dialects.npu.dialect import (
    FLOATS,
    INTEGERS,
    NpuOp,
    ReadsKV,
    Tensor,
    TensorResult,
    WritesKV,
    dims,
    dtype,
    require,
    require_dims,
    require_dtype,
    require_multiple,
    show,
)
from opennpu.dialects.symbols import Dim
from opennpu.dialects.symbols import dim as extent
from torch_mlir.dialects.ext import Pure
from torch_mlir.ir import FloatAttr, IntegerAttr


def require_rank(name: str, value, rank: int) -> None:
    require(len(dims(value)) == rank, f"{name} has extents {show(dims(value))}, expected rank {rank}")


def check_index(name: str, value, tokens: Dim) -> None:
    require_dtype(name, value, *INTEGERS)
    require_dims(name, value, (tokens,))


def check_rope_cache(op) -> None:
    """cache is [positions, R], R even and at most head_dim."""
    require_dtype("cache", op.cache, *FLOATS)
    require_rank("cache", op.cache, 2)
    width = dims(op.cache)[1]
    require(isinstance(width, int) and width % 2 == 0, f"cache has {width} columns, expected an even number")
    require(width <= op.head_dim.value, f"cache has {width} columns, more than head_dim {op.head_dim.value}")


def check_kv(op) -> None:
    require(op.layer.value >= 0, f"layer {op.layer.value} is negative")
    for name in ("kv_heads", "head_dim", "v_head_dim"):
        require(getattr(op, name).value > 0, f"{name} must be positive")


class RopeOp(NpuOp, name="rope", traits=[Pure]):
    """x[T,H·D], positions[T], cache[maxpos,R] → y: rotary embedding of each head, f32 inside.

    A row of the cache is R/2 cosines, then R/2 sines. The first R of D elements of a head
    rotate: with `neox` element i pairs with i + R/2, else elements 2i and 2i + 1 pair.
    """

    x: Tensor
    positions: Tensor
    cache: Tensor
    head_dim: IntegerAttr
    neox: IntegerAttr
    y: TensorResult

    def check(self):
        require_dtype("x", self.x, *FLOATS)
        require_rank("x", self.x, 2)
        tokens, width = dims(self.x)
        require_multiple("width of x", width, self.head_dim.value)
        check_index("positions", self.positions, tokens)
        check_rope_cache(self)
        require_dtype("y", self.y, dtype(self.x))
        require_dims("y", self.y, (tokens, width))


class KvWriteOp(NpuOp, name="kv_write", traits=[WritesKV]):
    """k[T,Hkv·D], v[T,Hkv·Dv], slots[T]: writes token t's K and V of `layer` to slot slots[t]."""

    k: Tensor
    v: Tensor
    slots: Tensor
    layer: IntegerAttr
    kv_heads: IntegerAttr
    head_dim: IntegerAttr
    v_head_dim: IntegerAttr

    def check(self):
        check_kv(self)
        heads = self.kv_heads.value
        require_dtype("k", self.k, *FLOATS)
        require_dtype("v", self.v, dtype(self.k))
        require_rank("k", self.k, 2)
        tokens = dims(self.k)[0]
        require_dims("k", self.k, (tokens, heads * self.head_dim.value))
        require_dims("v", self.v, (tokens, heads * self.v_head_dim.value))
        check_index("slots", self.slots, tokens)


class PagedAttentionOp(NpuOp, name="paged_attention", traits=[ReadsKV]):
    """q[T,H·D], block_table[B,P] (i32), seq_lens[B], q_start[B+1] → o[T,H·Dv].

    Sequence b's queries are rows q_start[b] … q_start[b+1]-1 of q, the last tokens of its
    seq_lens[b]; each sees the keys up to its own position, the last `window` of them where
    `window` is not 0. Scores are q·k · `scale`, capped to `logit_cap`·tanh(x/`logit_cap`)
    where that is not 0. block_table names the KV pages of each sequence in order.
    """

    q: Tensor
    block_table: Tensor
    seq_lens: Tensor
    q_start: Tensor
    layer: IntegerAttr
    heads: IntegerAttr
    kv_heads: IntegerAttr
    head_dim: IntegerAttr
    v_head_dim: IntegerAttr
    scale: FloatAttr
    logit_cap: FloatAttr
    window: IntegerAttr
    o: TensorResult

    def check(self):
        check_kv(self)
        heads = self.heads.value
        require_multiple("heads", heads, self.kv_heads.value)
        require(self.window.value >= 0, f"window {self.window.value} is negative")
        require_dtype("q", self.q, *FLOATS)
        require_rank("q", self.q, 2)
        tokens = dims(self.q)[0]
        require_dims("q", self.q, (tokens, heads * self.head_dim.value))
        require_dtype("block_table", self.block_table, "i32")
        require_rank("block_table", self.block_table, 2)
        sequences = dims(self.block_table)[0]
        check_index("seq_lens", self.seq_lens, sequences)
        check_index("q_start", self.q_start, extent(sequences + 1))
        require_dtype("o", self.o, dtype(self.q))
        require_dims("o", self.o, (tokens, heads * self.v_head_dim.value))


class RopeKvWriteOp(NpuOp, name="rope_kv_write", traits=[WritesKV]):
    """qkv[T,(H+Hkv)·D + Hkv·Dv], positions[T], cache, slots[T] → q[T,H·D]: rope of Q and K, then kv_write.

    Made by fusion. Attributes as of rope and kv_write; `heads` is H.
    """

    qkv: Tensor
    positions: Tensor
    cache: Tensor
    slots: Tensor
    layer: IntegerAttr
    heads: IntegerAttr
    kv_heads: IntegerAttr
    head_dim: IntegerAttr
    v_head_dim: IntegerAttr
    neox: IntegerAttr
    q: TensorResult

    def check(self):
        check_kv(self)
        heads, kv_heads, head_dim = self.heads.value, self.kv_heads.value, self.head_dim.value
        require_multiple("heads", heads, kv_heads)
        require_dtype("qkv", self.qkv, *FLOATS)
        require_rank("qkv", self.qkv, 2)
        tokens = dims(self.qkv)[0]
        width = (heads + kv_heads) * head_dim + kv_heads * self.v_head_dim.value
        require_dims("qkv", self.qkv, (tokens, width))
        check_index("positions", self.positions, tokens)
        check_index("slots", self.slots, tokens)
        check_rope_cache(self)
        require_dtype("q", self.q, dtype(self.qkv))
        require_dims("q", self.q, (tokens, heads * head_dim))
