"""Operators of random graphs along a dimension: reductions, softmax, norms."""

import torch
import torch.nn.functional as F
from opennpu.tools.fuzzing.registry import Choice, Value, a_dim, has_rank, is_float, one, operator, some

REDUCTIONS = {
    "sum": lambda x, dim, keepdim: x.sum(dim, keepdim=keepdim),
    "mean": lambda x, dim, keepdim: x.mean(dim, keepdim=keepdim),
    "amax": lambda x, dim, keepdim: x.amax(dim, keepdim=keepdim),
    "amin": lambda x, dim, keepdim: x.amin(dim, keepdim=keepdim),
    "argmax": lambda x, dim, keepdim: x.argmax(dim, keepdim=keepdim),
    "var": lambda x, dim, keepdim: x.var(dim, correction=0, keepdim=keepdim),
    "logsumexp": lambda x, dim, keepdim: x.logsumexp(dim, keepdim=keepdim),
}


def _not_empty(value: Value, d: int) -> bool:
    return value.small.shape[d] > 0


def _reduction(rng, value: Value) -> dict | None:
    dim = rng.randrange(value.rank)
    return {"dim": dim, "keepdim": rng.random() < 0.6} if _not_empty(value, dim) else None


for _name, _run in REDUCTIONS.items():
    operator(_name, one(has_rank(1, kind=is_float), _reduction))(_run)
for _name in ("sum", "amax", "argmax"):
    operator(f"int_{_name}", one(has_rank(1, kind=lambda v: v.is_integer), _reduction))(REDUCTIONS[_name])
operator("any", one(has_rank(1, kind=lambda v: v.dtype == torch.bool), a_dim))(lambda x, dim: x.any(dim))
operator("all", one(has_rank(1, kind=lambda v: v.dtype == torch.bool), a_dim))(lambda x, dim: x.all(dim))
operator("count", one(has_rank(1, kind=lambda v: v.is_integer), a_dim))(lambda x, dim: x.count_nonzero(dim))
operator("norm", one(has_rank(1, kind=is_float), a_dim))(lambda x, dim: torch.linalg.vector_norm(x, dim=dim))


def _topk(rng, value: Value) -> dict | None:
    size = value.small.shape[-1]
    return {"k": rng.randint(1, min(size, 5)), "largest": rng.random() < 0.7} if size else None


operator("topk", one(has_rank(1, 3, is_float), _topk))(
    lambda x, k, largest: x.topk(k, -1, largest=largest)[0]
)
operator("softmax", one(has_rank(1, kind=is_float), a_dim))(lambda x, dim: x.softmax(dim))
operator("log_softmax", one(has_rank(1, kind=is_float), a_dim))(lambda x, dim: x.log_softmax(dim))
operator("cumsum", one(has_rank(1, kind=is_float), a_dim))(lambda x, dim: x.cumsum(dim))


def _norm(rng, values) -> Choice:
    x = some(rng, values, lambda v: v.is_float and v.rank >= 1 and bool(v.size(v.rank - 1)))
    return None if x is None else ([x], {"eps": rng.choice([1e-5, 1e-3])})


operator("layer_norm", _norm)(lambda x, eps: F.layer_norm(x, x.shape[-1:], eps=eps))
operator("rms_norm", _norm)(lambda x, eps: F.rms_norm(x, x.shape[-1:], eps=eps))


def _weighted(rng, values) -> Choice:
    x = some(rng, values, lambda v: v.is_float and v.rank >= 1 and bool(v.size(v.rank - 1)))
    if x is None:
        return None
    n = values[x].size(values[x].rank - 1)
    w = some(rng, values, lambda v: v.rank == 1 and v.size(0) == n and v.dtype == values[x].dtype)
    return None if w is None else ([x, w], {})


operator("rms_norm_w", _weighted)(lambda x, w: F.rms_norm(x, x.shape[-1:], w, 1e-5))
operator("layer_norm_w", _weighted)(lambda x, w: F.layer_norm(x, x.shape[-1:], w, w * 0.5, 1e-5))
