"""Operators of random graphs that language models are made of: `opennpu::` operators, whole.

What a program is given beside tensors of the graph (positions, starts of sequences, tables of pages) is
computed from the number of tokens.
"""

import math
import random
from collections.abc import Callable, Sequence

import torch
from opennpu.compiler.frontend.ops import KvStore, kv_store
from opennpu.tools.fuzzing.registry import Choice, Value, has_rank, operator, some
from torch import Tensor

OPS = torch.ops.opennpu
EPS = 1e-5
ATTEMPTS = 10  # at operands that fit together
NAMES: list[str] = []
"""The operators of this file."""


def whole(name: str, pick: Callable, absolute: bool = False, once: bool = False) -> Callable:
    """An operator that computes in float32 inside; float64 becomes float32 for it."""

    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def real(*operands: Tensor, **params) -> Tensor:
            result = run(*(x.float() if x.is_floating_point() else x for x in operands), **params)
            return result.double() if result.is_floating_point() else result

        NAMES.append(name)
        operator(name, pick, absolute, real=real, once=once)(run)
        return run

    return register


def _wide(value: Value) -> bool:
    """Rows of elements that a program may be made for."""
    return value.is_float and value.rank >= 1 and bool(value.size(value.rank - 1))


def _width(value: Value) -> int:
    return value.size(value.rank - 1)


def _alike(a: Value, b: Value, dims: slice = slice(None)) -> bool:
    """The same dtype and extents."""
    pairs = ((a.small, b.small), (a.large, b.large))
    return a.dtype == b.dtype and all(x.shape[dims] == y.shape[dims] for x, y in pairs)


def _first(rng: random.Random, values: Sequence[Value], *fits: Callable[..., bool]) -> list[int] | None:
    """A value for each of `fits`, which is asked with those before."""
    chosen: list[int] = []
    for fit in fits:
        i = some(rng, values, lambda v, fit=fit: fit(*(values[j] for j in chosen), v))
        if i is None:
            return None
        chosen.append(i)
    return chosen


def several(*fits: Callable[..., bool], params: Callable[..., dict | None] = lambda rng, *values: {}):
    """Picks a value for each of `fits`, then parameters."""

    def pick(rng: random.Random, values: Sequence[Value]) -> Choice:
        for _ in range(ATTEMPTS):
            chosen = _first(rng, values, *fits)
            found = None if chosen is None else params(rng, *(values[i] for i in chosen))
            if found is not None:
                return chosen, found
        return None

    return pick


# ---- norms, gates, products


def _scales(x: Value, w: Value) -> bool:
    return w.rank == 1 and w.size(0) == _width(x) and w.dtype == x.dtype


def _residual(x: Value, w: Value, r: Value) -> bool:
    return _alike(x, r)


whole("op_rms_norm", several(_wide, _scales))(lambda x, w: OPS.rms_norm(x, w, EPS))
whole("op_layer_norm", several(_wide, _scales, lambda x, w, b: _scales(x, b)))(
    lambda x, w, b: OPS.layer_norm(x, w, b, EPS)
)
whole("add_rms_norm", several(_wide, _scales, _residual))(lambda x, w, r: OPS.add_rms_norm(x, r, w, EPS)[0])
whole("add_rms_norm_both", several(_wide, _scales, _residual))(
    lambda x, w, r: torch.cat(OPS.add_rms_norm(x, r, w, EPS), -1)
)


def _even(value: Value) -> bool:
    return _wide(value) and _width(value) % 2 == 0


whole("silu_and_mul", several(_even))(OPS.silu_and_mul)
whole("gelu_and_mul", several(_even, params=lambda r, x: {"approximate": r.choice(["none", "tanh"])}), True)(
    OPS.gelu_and_mul
)


def _rows(value: Value) -> bool:
    return value.rank >= 2 and _wide(value)


def _multiplies(x: Value, w: Value) -> bool:
    return w.dtype == x.dtype and w.rank == 2 and w.size(1) == _width(x) and bool(w.size(0))


def _activation(rng: random.Random, x: Value, w: Value, *extra: Value) -> dict:
    gates = ["gate_silu", "gate_gelu_tanh"] if w.size(0) % 2 == 0 and len(extra) < 2 else []
    return {"activation": rng.choice(["none", "relu", "gelu_tanh", "silu", "sigmoid", "tanh", *gates])}


def _biases(x: Value, w: Value, b: Value) -> bool:
    return b.is_float and b.rank == 1 and b.size(0) == w.size(0)


def _adds(x: Value, w: Value, r: Value) -> bool:
    return r.is_float and r.rank == x.rank and r.size(r.rank - 1) == w.size(0) and _same_rows(x, r)


def _same_rows(a: Value, b: Value) -> bool:
    return a.small.shape[:-1] == b.small.shape[:-1] and a.large.shape[:-1] == b.large.shape[:-1]


whole("op_matmul", several(_rows, _multiplies, params=_activation), True)(OPS.matmul)
whole("op_matmul_bias", several(_rows, _multiplies, _biases, params=_activation), True)(OPS.matmul)
whole("op_matmul_residual", several(_rows, _multiplies, _adds), True)(
    lambda x, w, r: OPS.matmul(x, w, None, r, activation="silu")
)


# ---- tokens


def _tokens(value: Value) -> bool:
    """Rows of tokens, not too many for the pages."""
    few = value.rank == 2 and value.small.shape[0] >= 1 and value.large.shape[0] <= 2 * value.small.shape[0]
    return few and _wide(value)


def _head(rng: random.Random, *packed: Value) -> int:
    """A head's elements, for rows of heads."""
    common = math.gcd(*map(_width, packed))
    return rng.choice([d for d in range(1, min(common, 128) + 1) if common % d == 0][-3:])


def _tables(q: Value, cache: Value) -> bool:
    return cache.is_float and cache.rank == 2 and (cache.size(0) or 0) > 0 and _even(cache)


def _rotation(rng: random.Random, q: Value, cache: Value) -> dict | None:
    width = _width(cache)
    heads = [h for h in (1, 2, 3, 4) if _width(q) % h == 0 and _width(q) // h >= width]
    return {"heads": rng.choice(heads), "neox": rng.random() < 0.5} if heads else None


@whole("rotary", several(_tokens, _tables, params=_rotation))
def rotary(q: Tensor, cache: Tensor, heads: int, neox: bool) -> Tensor:
    positions = torch.arange(q.shape[0], device=q.device) * 5 % cache.shape[0]
    return OPS.rotary_embedding(positions, q, q * 0.5, cache, q.shape[1] // heads, neox)[0]


def _scores(rng: random.Random) -> dict:
    return {"window": rng.choice([-1, -1, 0, 3, 40]), "softcap": rng.choice([0.0, 0.0, 2.0])}


def _keys(q: Value, k: Value, v: Value | None = None) -> bool:
    return _same_rows(q, k) and k.dtype == q.dtype and k.rank == 2 and bool(_width(k))


def _attention(rng: random.Random, q: Value, k: Value, *_) -> dict | None:
    """Widths of heads that fit q and k; v has as many heads as k."""
    d = _head(rng, q, k)
    heads, kv_heads = _width(q) // d, _width(k) // d
    return {"d": d, "causal": rng.random() < 0.6, **_scores(rng)} if heads % kv_heads == 0 else None


@whole("flash", several(_tokens, _keys, params=_attention))
def flash(q: Tensor, k: Tensor, d: int, causal: bool, window: int, softcap: float) -> Tensor:
    """Three sequences, as even as can be; one may be empty."""
    starts = torch.arange(4, device=q.device) * q.shape[0] // 3
    q, k = q.unflatten(1, (-1, d)), k.unflatten(1, (-1, d))
    options = {"causal": causal, "window_left": window, "softcap": softcap}
    return OPS.flash_attention(q, k, k * 0.5, starts, starts, **options).flatten(1)


# ---- pages

PAGE, PAGES, BEFORE = 16, 64, 37
"""Tokens of a page, pages in all, tokens of a sequence before those of the graph."""


class Pages(KvStore):
    """Keys and values that are the same in every run before it writes its own."""

    def __init__(self):
        super().__init__(PAGE, PAGE * PAGES)

    def layer(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int, dtype: torch.dtype):
        if layer not in self.layers:
            generator = torch.Generator().manual_seed(layer)
            shapes = [(self.slots, kv_heads, dim) for dim in (head_dim, v_head_dim)]
            self.layers[layer] = tuple(
                torch.randn(s, generator=generator).bfloat16().to(dtype) for s in shapes
            )
        return self.layers[layer]


def _paged(rng: random.Random, q: Value, k: Value) -> dict | None:
    found = _attention(rng, q, k)
    if found is None or found.pop("causal") is None:
        return None
    return {**found, "window": rng.choice([0, 0, 1, 9, 60]), "decode": rng.random() < 0.5}


@whole("paged", several(_tokens, _keys, params=_paged), once=True)
def paged(q: Tensor, k: Tensor, d: int, window: int, softcap: float, decode: bool) -> Tensor:
    """One sequence whose last tokens the rows are, or a sequence for each row.

    Pages are shared at will: what is read is what lies there once k and v are written.
    """
    n = torch.arange(q.shape[0], device=q.device)
    slots = n * 7 % (PAGE * PAGES)  # 7 is prime to it: no two tokens have one slot
    if decode:
        starts, lengths = torch.arange(q.shape[0] + 1, device=q.device), n * 13 % 97 + 1
        table = (n[:, None] * 3 + torch.arange(7, device=q.device) * 5) % PAGES
    else:
        starts = torch.arange(2, device=q.device) * q.shape[0]
        lengths = torch.arange(1, device=q.device) + (q.shape[0] + BEFORE)
        table = (torch.arange(PAGES, device=q.device) * 5 % PAGES)[None]
    sizes = (q.shape[1] // d, k.shape[1] // d, d, d)
    with kv_store(Pages()):
        return OPS.paged_attention(
            q, k, k * 0.5, slots, table.int(), lengths, starts, 0, *sizes, d**-0.5, softcap, window
        )


# ---- experts


def _logits(x: Value, logits: Value) -> bool:
    return _tokens(logits) and _same_rows(x, logits) and _width(logits) <= 64


def _routing(rng: random.Random, x: Value, logits: Value, *_) -> dict:
    return {"k": rng.randint(1, min(_width(logits), 4)), "renormalize": rng.random() < 0.5}


whole("router", several(_tokens, _logits, params=_routing))(
    lambda x, logits, k, renormalize: OPS.topk_softmax(logits, k, renormalize)[0]
)
whole("router_ids", several(_tokens, _logits, params=_routing))(
    lambda x, logits, k, renormalize: OPS.topk_softmax(logits, k, renormalize)[1]
)


def _expands(x: Value, logits: Value, w13: Value) -> bool:
    fits = w13.rank == 3 and w13.size(0) == _width(logits) and w13.size(2) == _width(x)
    return fits and w13.dtype == x.dtype and (w13.size(1) or 1) % 2 == 0


def _contracts(x: Value, logits: Value, w13: Value, w2: Value) -> bool:
    return w2.dtype == x.dtype and w2.small.shape == (w13.size(0), w13.size(2), w13.size(1) // 2)


def _moe(rng: random.Random, *values: Value) -> dict:
    return {**_routing(rng, *values), "activation": rng.choice(["silu", "gelu", "gelu_tanh"])}


@whole("moe", several(_tokens, _logits, _expands, _contracts, params=_moe), True)
def moe(x: Tensor, logits: Tensor, w13: Tensor, w2: Tensor, k: int, renormalize: bool, activation: str):
    weights, ids = OPS.topk_softmax(logits, k, renormalize)
    return OPS.fused_moe(x, weights, ids, w13, w2, activation=activation)


def _experts(x: Value, w: Value) -> bool:
    return w.rank == 3 and bool(w.size(0)) and w.size(2) == _width(x) and w.dtype == x.dtype


@whole("grouped", several(_tokens, _experts))
def grouped(x: Tensor, w: Tensor) -> Tensor:
    """Rows shared out evenly over the experts, the first of which may get none."""
    starts = torch.arange(w.shape[0] + 1, device=x.device) * x.shape[0] // w.shape[0]
    return OPS.grouped_matmul(x, w, starts)


# ---- tokens in and out


def _ids(table: Value, ids: Value) -> bool:
    return ids.is_integer and ids.dtype != torch.int8 and ids.rank in (1, 2)


whole("embedding", several(lambda t: has_rank(2, 2)(t) and _wide(t) and bool(t.size(0)), _ids))(
    lambda table, ids: OPS.embedding(table, ids % table.shape[0])
)
whole("op_argmax", several(_wide))(OPS.argmax)


# ---- inputs that fit together


def family(rng: random.Random, dtype: str) -> tuple[list, list]:
    """Inputs and weights (extents, dtype) of a part of a model."""
    tokens, hidden = rng.choice(["T", "T", "T", 1, 5, 33]), rng.choice([8, 16, 31, 48, 64, 65, 128])
    shapes = rng.choice([_block, _attention_inputs, _layer_of_experts])
    inputs, weights = shapes(rng, tokens, hidden)
    ids = [[tokens], rng.choice(["i64", "i32"])]
    return [[s, dtype] for s in inputs] + [ids], [[s, dtype] for s in (*weights, [hidden])]


def _block(rng, tokens, hidden):
    width = rng.choice([2, 16, 33, 64, 130, 256])
    return [[tokens, hidden]] * 2, [[2 * width, hidden], [hidden, width], [hidden, hidden]]


def _attention_inputs(rng, tokens, hidden):
    d, kv_heads = rng.choice([2, 8, 16, 33, 64, 80, 128]), rng.choice([1, 2])
    heads = kv_heads * rng.choice([1, 2, 3])
    rotated = 2 * rng.randint(1, d // 2)
    return [[tokens, heads * d], [tokens, kv_heads * d]], [[rng.choice([7, 40, 130]), rotated]]


def _layer_of_experts(rng, tokens, hidden):
    experts, width = rng.choice([1, 2, 3, 8, 17]), rng.choice([1, 8, 16, 33, 64])
    return [[tokens, hidden], [tokens, experts]], [[experts, 2 * width, hidden], [experts, hidden, width]]
