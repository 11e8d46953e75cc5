"""Operators of random graphs that move elements: views, concatenations, gathers, updates."""

import torch
import torch.nn.functional as F
from opennpu.tools.fuzzing.registry import Choice, Value, a_dim, has_rank, is_float, one, operator, some, two


def _slice(rng, value: Value) -> dict | None:
    dim = rng.randrange(value.rank)
    size = value.small.shape[dim]
    if size < 2:
        return None
    start = rng.randrange(size - 1)
    stop = rng.choice([None, rng.randrange(start + 1, size + 1)])
    return {"dim": dim, "start": start, "stop": stop, "step": rng.choice([1, 1, 1, 2, 3])}


@operator("slice", one(has_rank(1), _slice))
def slice_(x, dim, start, stop, step):
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, stop, step)
    return x[tuple(index)]


def _permutation(rng, value: Value) -> dict:
    return {"dims": rng.sample(range(value.rank), value.rank)}


operator("permute", one(has_rank(2), _permutation))(lambda x, dims: x.permute(dims))
operator("unsqueeze", one(has_rank(0, 3), lambda r, v: {"dim": r.randrange(v.rank + 1)}))(
    lambda x, dim: x.unsqueeze(dim)
)
operator("flatten", one(has_rank(2), lambda r, v: {"start": r.randrange(v.rank - 1)}))(
    lambda x, start: x.flatten(start, start + 1)
)
operator("flip", one(has_rank(1), a_dim))(lambda x, dim: x.flip(dim))
operator("repeat", one(has_rank(1, 3), lambda r, v: {"times": [r.choice([1, 2, 3]) for _ in range(v.rank)]}))(
    lambda x, times: x.repeat(times)
)
operator("roll_half", one(has_rank(1, kind=lambda v: (v.size(v.rank - 1) or 0) >= 2)))(
    lambda x: (
        torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), -1)
        if x.dtype != torch.bool
        else x
    )
)
operator("tril", one(has_rank(2, kind=is_float)))(torch.tril)
operator("pad", one(has_rank(1, 3, is_float), lambda r, v: {"by": [r.randrange(3), r.randrange(3)]}))(
    lambda x, by: F.pad(x, by, value=1.5)
)


def _unflatten(rng, value: Value) -> dict | None:
    dim = rng.randrange(value.rank)
    size = value.size(dim)
    divisors = [n for n in (2, 3, 4, 8) if size and size % n == 0]
    return {"dim": dim, "by": rng.choice(divisors)} if divisors else None


operator("unflatten", one(has_rank(1, 3), _unflatten))(lambda x, dim, by: x.unflatten(dim, (by, -1)))


def _concat(rng, values) -> Choice:
    a = some(rng, values, has_rank(1))
    if a is None:
        return None
    dim = rng.randrange(values[a].rank)

    def fits(v: Value) -> bool:
        return v.dtype == values[a].dtype and v.rank == values[a].rank and all(
            x.shape[d] == y.shape[d]
            for x, y in ((v.small, values[a].small), (v.large, values[a].large))
            for d in range(v.rank) if d != dim
        )  # fmt: skip

    b = some(rng, values, fits)
    return ([a, b], {"dim": dim})


operator("concat", _concat)(lambda a, b, dim: torch.cat((a, b), dim))
operator("stack", two(is_float))(
    lambda a, b: torch.stack(
        [x.to(torch.promote_types(a.dtype, b.dtype)) for x in torch.broadcast_tensors(a, b)]
    )
)


def _gather(rng, values) -> Choice:
    table = some(rng, values, has_rank(1, 3, lambda v: (v.size(0) or 0) > 0))
    index = some(rng, values, has_rank(0, 2, lambda v: v.is_integer and v.dtype != torch.int8))
    if table is None or index is None or values[table].rank + values[index].rank > 5:
        return None
    return [table, index], {}


operator("gather", _gather)(lambda table, index: table[(index % table.shape[0]).long()])


def _take(rng, values) -> Choice:
    x = some(rng, values, has_rank(1, 3, lambda v: (v.size(v.rank - 1) or 0) > 0))
    if x is None:
        return None
    v = values[x]
    index = some(rng, values, lambda i: i.is_integer and i.dtype != torch.int8 and i.rank == v.rank and all(
        p.shape[:-1] == q.shape[:-1] for p, q in ((i.small, v.small), (i.large, v.large))))  # fmt: skip
    return None if index is None else ([x, index], {})


operator("take", _take)(lambda x, index: x.gather(-1, (index % x.shape[-1]).long()))


def _update(rng, values) -> Choice:
    """Rows of x that other rows take the place of."""
    x = some(rng, values, has_rank(1, 3, lambda v: v.small.shape[0] > 0))
    if x is None:
        return None
    v = values[x]
    rows = some(rng, values, lambda r: r.dtype == v.dtype and r.rank == v.rank and all(
        p.shape[1:] == q.shape[1:] and 0 < p.shape[0] <= q.shape[0]
        for p, q in ((r.small, v.small), (r.large, v.large))))  # fmt: skip
    return None if rows is None else ([x, rows], {})


@operator("put_rows", _update)
def put_rows(x, rows):
    at = torch.arange(rows.shape[0], device=x.device)
    return x.index_put((x.shape[0] - 1 - at,), rows)


@operator("slice_scatter", _update)
def slice_scatter(x, rows):
    return x.slice_scatter(rows, 0, 0, rows.shape[0])


operator("select", one(has_rank(1, kind=lambda v: min(v.small.shape) > 0), a_dim))(
    lambda x, dim: x.select(dim, -1)
)
operator("repeat_interleave", one(has_rank(1, 3), a_dim))(lambda x, dim: x.repeat_interleave(2, dim))
operator("triu", one(has_rank(2, kind=is_float)))(lambda x: torch.triu(x, 1))
operator("positions", one(has_rank(1), a_dim))(lambda x, dim: torch.arange(x.shape[dim], device=x.device))
