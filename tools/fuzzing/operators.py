"""The operators that random graphs are made of: what each computes in PyTorch, and what it takes.

An operator's `pick(rng, values)` chooses operands and parameters that fit, or gives None. A value is
known by the shape that it has for two values of the symbol T, so that what may depend on T is seen:
no parameter does. An operator of several steps has none that rounds but its last, save products.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float64)
DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i8": torch.int8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph, for a smaller and a larger T."""

    small: Tensor
    large: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.small.dtype

    @property
    def rank(self) -> int:
        return self.small.dim()

    def size(self, d: int) -> int | None:
        """None where it depends on T."""
        return self.small.shape[d] if self.small.shape[d] == self.large.shape[d] else None

    @property
    def is_float(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self.dtype != torch.bool


Choice = tuple[list[int], dict] | None
"""(numbers of the operands, parameters)"""
Pick = Callable[[random.Random, Sequence[Value]], Choice]


@dataclass(frozen=True)
class Operator:
    run: Callable[..., Tensor]
    pick: Pick
    absolute: bool = False  # its error is bounded absolutely, not relative to its result


OPERATORS: dict[str, Operator] = {}


def operator(name: str, pick: Pick, absolute: bool = False) -> Callable:
    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        OPERATORS[name] = Operator(run, pick, absolute)
        return run

    return register


# ---- choosing operands


def some(rng: random.Random, values: Sequence[Value], fits: Callable[[Value], bool]) -> int | None:
    """A value that fits; late ones more often, so that chains grow."""
    found = [i for i, value in enumerate(values) if fits(value)]
    if not found:
        return None
    return rng.choice(found[-6:] if rng.random() < 0.7 else found)


def one(
    fits: Callable[[Value], bool], params: Callable[[random.Random, Value], dict | None] = lambda r, v: {}
):
    def pick(rng, values) -> Choice:
        i = some(rng, values, fits)
        if i is None:
            return None
        chosen = params(rng, values[i])
        return None if chosen is None else ([i], chosen)

    return pick


def is_float(value: Value) -> bool:
    return value.is_float


def has_rank(least: int, most: int = 4, kind: Callable[[Value], bool] = lambda v: True):
    return lambda value: least <= value.rank <= most and kind(value)


def a_dim(rng: random.Random, value: Value) -> dict:
    return {"dim": rng.randrange(value.rank)}


def _broadcasts(a: Value, b: Value) -> bool:
    try:
        for x, y in ((a.small, b.small), (a.large, b.large)):
            if len(torch.broadcast_shapes(x.shape, y.shape)) > 4:
                return False
    except RuntimeError:
        return False
    return True


def two(kind: Callable[[Value], bool]):
    """Operands that broadcast."""

    def pick(rng, values) -> Choice:
        a = some(rng, values, kind)
        if a is None:
            return None
        b = some(rng, values, lambda v: kind(v) and _broadcasts(values[a], v))
        return None if b is None else ([a, b] if rng.random() < 0.5 else [b, a], {})

    return pick


# ---- element by element

for _name in (
    "neg",
    "abs",
    "relu",
    "sigmoid",
    "tanh",
    "erf",
    "floor",
    "ceil",
    "round",
    "trunc",
    "square",
    "sign",
):
    operator(_name, one(is_float))(getattr(torch, _name))
operator("sin", one(is_float), absolute=True)(torch.sin)
operator("cos", one(is_float), absolute=True)(torch.cos)
operator("gelu", one(is_float), absolute=True)(F.gelu)
operator("gelu_tanh", one(is_float), absolute=True)(lambda x: F.gelu(x, approximate="tanh"))
operator("silu", one(is_float))(F.silu)
operator("exp", one(is_float))(lambda x: torch.exp(x.clamp(-20, 20)))
operator("log", one(is_float))(lambda x: torch.log(x.abs().clamp(min=0.25)))
operator("sqrt", one(is_float))(lambda x: torch.sqrt(x.abs()))
operator("rsqrt", one(is_float))(lambda x: torch.rsqrt(x.abs().clamp(min=0.125)))
operator("recip", one(is_float))(lambda x: torch.reciprocal(x.abs().clamp(min=0.5)))
operator("softplus", one(is_float))(F.softplus)
operator("elu", one(is_float))(F.elu)
operator("hardtanh", one(is_float))(F.hardtanh)
operator("int_neg", one(lambda v: v.is_integer))(torch.neg)
operator("int_abs", one(lambda v: v.is_integer))(torch.abs)
operator("not", one(lambda v: v.dtype == torch.bool))(torch.logical_not)


def _number(rng, value: Value) -> dict:
    return {"number": rng.choice([0.5, 2.0, -1.5, 3, -0.25])}


operator("times", one(is_float, _number))(lambda x, number: x * number)
operator("plus", one(is_float, _number))(lambda x, number: x + number)


@operator("clamp", one(is_float, lambda r, v: {"low": -r.choice([0.5, 2.0]), "high": r.choice([0.25, 1.5])}))
def clamp(x, low, high):
    return x.clamp(low, high)


@operator(
    "int_scalar",
    one(lambda v: v.is_integer, lambda r, v: {"op": r.choice("+-*/%&"), "by": r.choice([1, 2, 3, 7])}),
)
def int_scalar(x, op, by):
    table = {"+": x + by, "-": by - x, "*": x * by, "/": x // by, "%": x % by, "&": x & by}
    return table[op]


for _name in ("add", "sub", "mul", "maximum", "minimum"):
    operator(_name, two(is_float))(getattr(torch, _name))
    operator(f"int_{_name}", two(lambda v: v.is_integer))(getattr(torch, _name))
operator("mixed_add", two(lambda v: v.dtype != torch.bool))(torch.add)
operator("div", two(is_float))(lambda a, b: a / b.abs().clamp(min=0.5))
operator("pow", two(is_float))(lambda a, b: a.abs().clamp(0.5, 4) ** b.clamp(-3, 3))
operator("int_div", two(lambda v: v.is_integer))(
    lambda a, b: torch.div(a, b.abs() + 1, rounding_mode="trunc")
)
operator("int_mod", two(lambda v: v.is_integer))(lambda a, b: a % (b.abs() + 1))
for _name in ("lt", "le", "gt", "ge"):
    operator(_name, two(lambda v: v.dtype != torch.bool))(getattr(torch, _name))
for _name in ("eq", "ne"):  # of floats a rounding decides
    operator(_name, two(lambda v: v.is_integer))(getattr(torch, _name))
for _name in ("logical_and", "logical_or", "logical_xor"):
    operator(_name, two(lambda v: v.dtype == torch.bool))(getattr(torch, _name))


def _where(rng, values) -> Choice:
    c = some(rng, values, lambda v: v.dtype == torch.bool)
    if c is None:
        return None
    a = some(rng, values, lambda v: _broadcasts(values[c], v))
    if a is None:
        return None
    b = some(rng, values, lambda v: v.dtype == values[a].dtype and _broadcasts(values[a], v)
             and _broadcasts(values[c], v))  # fmt: skip
    return None if b is None else ([c, a, b], {})


operator("where", _where)(torch.where)
operator("masked_fill", _where)(lambda c, a, b: torch.where(c, b, torch.zeros_like(a)))


@operator(
    "cast", one(lambda v: True, lambda r, v: {"dtype": r.choice([n for n in DTYPES if DTYPES[n] != v.dtype])})
)
def cast(x, dtype, real=False):
    """To integers only what fits: the rest has no defined result in PyTorch."""
    target = DTYPES[dtype]
    if target.is_floating_point:
        return x.to(torch.float64 if real else target)
    return x.clamp(-100, 100).to(target) if x.is_floating_point() else x.to(target)


# ---- along a dimension

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


# ---- products


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


# ---- movement


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
operator("positions", one(has_rank(1), a_dim))(lambda x, dim: torch.arange(x.shape[dim], device=x.device))
