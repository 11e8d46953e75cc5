"""Matrix products of random graphs, and what follows them."""

import torch
import torch.nn.functional as F
from opennpu.tools.fuzzing.registry import Choice, Value, has_rank, is_float, one, operator, some


def _product(rng, values) -> Choice:
    """x[…, K] · w[K, N], or in equal batches."""
    x = some(rng, values, has_rank(2, 4, lambda v: v.is_float and v.size(v.rank - 1) is not None))
    if x is None:
        return None
    k, rank = values[x].size(values[x].rank - 1), values[x].rank

    def fits(v: Value) -> bool:
        if v.dtype != values[x].dtype or v.rank < 2 or v.size(v.rank - 2) != k:
            return False
        return v.rank == 2 or (v.rank == rank and v.small.shape[:-2] == values[x].small.shape[:-2]
                               and v.large.shape[:-2] == values[x].large.shape[:-2])  # fmt: skip

    w = some(rng, values, fits)
    return None if w is None else ([x, w], {})


def _linear(rng, values) -> Choice:
    """x[…, K] · w[N, K]ᵀ."""
    x = some(rng, values, has_rank(2, 4, lambda v: v.is_float and v.size(v.rank - 1) is not None))
    if x is None:
        return None
    k = values[x].size(values[x].rank - 1)
    w = some(rng, values, lambda v: v.dtype == values[x].dtype and v.rank == 2 and v.size(1) == k)
    return None if w is None else ([x, w], {})


operator("matmul", _product)(torch.matmul)
operator("linear", _linear)(F.linear)
operator("linear_relu", _linear)(lambda x, w: F.linear(x, w).relu())
operator("linear_bias", _linear)(lambda x, w: F.linear(x, w, w[:, 0]))
operator("linear_silu_residual", _linear)(lambda x, w: F.silu(F.linear(x, w)) + F.linear(x, w))
operator("gram", one(has_rank(2, 3, is_float)))(lambda x: x @ x.transpose(-1, -2))
operator("attention", one(has_rank(3, 4, is_float), lambda r, v: {"causal": r.random() < 0.5}))(
    lambda x, causal: F.scaled_dot_product_attention(x, x, x * 0.5, is_causal=causal)
)
operator("gate", one(lambda v: v.is_float and v.rank >= 1 and (v.size(v.rank - 1) or 1) % 2 == 0))(
    lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1]
)
