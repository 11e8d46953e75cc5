"""How operators of random graphs are told: what each computes in PyTorch, and what it takes.

An operator's `pick(rng, values)` chooses operands and parameters that fit, or gives None. A value is
known by the shape that it has for two values of the symbol T, so that what may depend on T is seen:
no parameter does. An operator of several steps has none that rounds but its last, save products.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float64)


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
    real: Callable[..., Tensor] | None = None  # what computes float64, where `run` does not
    once: bool = False  # at most one of them in a graph


OPERATORS: dict[str, Operator] = {}


def operator(name: str, pick: Pick, absolute: bool = False, **more) -> Callable:
    def register(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        OPERATORS[name] = Operator(run, pick, absolute, **more)
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


def broadcasts(a: Value, b: Value) -> bool:
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
        b = some(rng, values, lambda v: kind(v) and broadcasts(values[a], v))
        return None if b is None else ([a, b] if rng.random() < 0.5 else [b, a], {})

    return pick
