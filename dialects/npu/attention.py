"""Rotary embedding and attention.

The KV cache is no SSA value: it is the chip's page memory, which `kv_write`, `rope_kv_write`
and `paged_attention` write and read (`WritesKV`, `ReadsKV`). T tokens, B sequences, P pages a
sequence, H query heads, Hkv of keys and values (H is a multiple of it: neighbouring query
heads share one), D = `head_dim`, Dv = `v_head_dim`.

Every attention is softmax(x)·v over the keys that a query sees, x = q·k · `scale`, where
`logit_cap` is not 0 capped to `logit_cap`·tanh(x/`logit_cap`). With `causal` a query sees the
keys up to its own position, with a `window` other than 0 none that lies `window` or more before
it. f32 inside. What sees no key is 0.
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
    seq_lens[b]; causal. block_table names the KV pages of each sequence in order.
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


class VarlenAttentionOp(NpuOp, name="varlen_attention", traits=[Pure]):
    """q[Tq,H,D], k[Tk,Hkv,D], v[Tk,Hkv,Dv], q_start[B+1], k_start[B+1] → o[Tq,H,Dv].

    Sequence b's queries are rows q_start[b] … q_start[b+1]-1 of q, its keys and values rows
    k_start[b] … k_start[b+1]-1 of k and v. Its last query stands at its last key. Rows of o
    that no sequence has hold anything.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_start: Tensor
    k_start: Tensor
    scale: FloatAttr
    logit_cap: FloatAttr
    causal: IntegerAttr
    window: IntegerAttr
    o: TensorResult

    def check(self):
        require(self.window.value >= 0, f"window {self.window.value} is negative")
        require_dtype("q", self.q, *FLOATS)
        require_rank("q", self.q, 3)
        rows, heads, _ = dims(self.q)
        width = check_keys(self, ())
        require_rank("q_start", self.q_start, 1)
        for name in ("q_start", "k_start"):
            check_index(name, getattr(self, name), dims(self.q_start)[0])
        require_dtype("o", self.o, dtype(self.q))
        require_dims("o", self.o, (rows, heads, width))


class DenseAttentionOp(NpuOp, name="dense_attention", traits=[Pure]):
    """q[B,H,Tq,D], k[B,Hkv,Tk,D], v[B,Hkv,Tk,Dv], mask[B,H,Tq,Tk]? → o[B,H,Tq,Dv].

    The first query stands at the first key. The optional mask is of i1, false where a key is
    hidden, or of a float dtype, added to the scaled scores. Every extent but Tq, Tk, B is static.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    scale: FloatAttr
    causal: IntegerAttr
    o: TensorResult

    def check(self):
        require_dtype("q", self.q, *FLOATS)
        require_rank("q", self.q, 4)
        batch, heads, rows, _ = dims(self.q)
        width = check_keys(self, (batch,))
        if self.mask is not None:
            require_dtype("mask", self.mask, "i1", *FLOATS)
            require_dims("mask", self.mask, (batch, heads, rows, dims(self.k)[2]))
        require_dtype("o", self.o, dtype(self.q))
        require_dims("o", self.o, (batch, heads, rows, width))


def check_keys(op, batch: tuple[Dim, ...]) -> Dim:
    """k and v agree with q and with each other; v's last extent.

    Without batch dimensions tokens come before heads, with them after.
    """
    for name in ("k", "v"):
        require_dtype(name, getattr(op, name), dtype(op.q))
        require_rank(name, getattr(op, name), len(dims(op.q)))
    head_axis = len(batch) if batch else 1
    require(dims(op.k)[-1] == dims(op.q)[-1], f"k has heads of {dims(op.k)[-1]}, q of {dims(op.q)[-1]}")
    found = dims(op.k)[: len(batch)]
    require(found == batch, f"k has a batch of {show(found)}, q of {show(batch)}")
    require_dims("v", op.v, (*dims(op.k)[:-1], dims(op.v)[-1]))
    heads, kv_heads = dims(op.q)[head_axis], dims(op.k)[head_axis]
    for name, value in (("heads", heads), ("kv_heads", kv_heads), ("head_dim", dims(op.q)[-1])):
        require(isinstance(value, int), f"{name} {value} is not static")
    require_multiple("heads", heads, kv_heads)
    width = dims(op.v)[-1]
    require(isinstance(width, int), f"v_head_dim {width} is not static")
    return width


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
