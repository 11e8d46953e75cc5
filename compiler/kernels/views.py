"""Algebra of strided views with symbolic extents.

A view says where element (i0, …, in-1) of a tensor lies: at element
`offset + Σ i_d · strides[d]` of a buffer. Reshape, transpose, slice and broadcast are
arithmetic on it and move no data; `reshape` answers None where only a copy will do.

The functions accept any dataclass that derives from `Strided` and keep its other fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from opennpu.dialects.symbols import Dim, Sym, dim, exact_div, num_elements


@dataclass(frozen=True)
class Strided:
    """Extents, strides and offset, all in elements; each an int or a Sym."""

    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    @property
    def rank(self) -> int:
        return len(self.shape)


V = TypeVar("V", bound=Strided)


def times(a: Dim, b: Dim) -> Dim:
    return dim(Sym.of(a) * b)


def plus(a: Dim, b: Dim) -> Dim:
    return dim(Sym.of(a) + b)


def row_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The strides of a contiguous tensor."""
    strides: list[Dim] = []
    step: Dim = 1
    for extent in reversed(shape):
        strides.append(step)
        step = times(step, extent)
    return tuple(reversed(strides))


def contiguous(shape: Sequence[Dim]) -> Strided:
    return Strided(tuple(shape), row_major(shape))


def is_contiguous(view: Strided) -> bool:
    """Whether the elements lie side by side in row-major order, whatever the symbols are."""
    if 0 in view.shape:
        return True
    return all(
        extent == 1 or stride == step
        for extent, stride, step in zip(view.shape, view.strides, row_major(view.shape), strict=True)
    )


def transpose(view: V, perm: Sequence[int]) -> V:
    """Dimension d of the result is dimension perm[d] of the view."""
    if sorted(perm) != list(range(view.rank)):
        raise ValueError(f"{list(perm)} is no permutation of {view.rank} dimensions")
    return replace(
        view,
        shape=tuple(view.shape[d] for d in perm),
        strides=tuple(view.strides[d] for d in perm),
    )


def slice_dim(view: V, d: int, offset: Dim, size: Dim, stride: int = 1) -> V:
    """`size` elements of dimension d: offset, offset + stride, …"""
    shape, strides = list(view.shape), list(view.strides)
    start = plus(view.offset, times(offset, strides[d]))
    shape[d], strides[d] = size, times(strides[d], stride)
    return replace(view, shape=tuple(shape), strides=tuple(strides), offset=start)


def unsqueeze(view: V, d: int) -> V:
    """A dimension of extent 1 before dimension d."""
    return replace(
        view, shape=(*view.shape[:d], 1, *view.shape[d:]), strides=(*view.strides[:d], 0, *view.strides[d:])
    )


def broadcast(view: V, shape: Sequence[Dim]) -> V:
    """Repeats dimensions of extent 1, and missing leading ones, by stride 0 (numpy's rules)."""
    missing = len(shape) - view.rank
    old_shape, old_strides = (1,) * missing + view.shape, (0,) * missing + view.strides
    strides: list[Dim] = []
    for old, new, stride in zip(old_shape, shape, old_strides, strict=True):
        if old != new and old != 1:
            raise ValueError(f"{view.shape} does not broadcast to {tuple(shape)}")
        strides.append(stride if old == new else 0)
    return replace(view, shape=tuple(shape), strides=tuple(strides))


def reshape(view: V, shape: Sequence[Dim]) -> V | None:
    """The view with other extents of the same product, or None where that needs a copy.

    The view is collapsed into runs that one stride describes; each new dimension must
    then divide what is left of its run, whatever the values of the symbols are.
    """
    if num_elements(view.shape) != num_elements(shape):
        raise ValueError(f"{view.shape} and {tuple(shape)} have different numbers of elements")
    if 0 in view.shape:
        return replace(view, shape=tuple(shape), strides=row_major(shape))
    collapsed, (runs,) = collapse(view.shape, [view.strides])
    left, step = [1, *collapsed], [0, *runs]
    strides: list[Dim] = []
    for extent in reversed(shape):
        if extent == 1:
            strides.append(step[-1])
            continue
        while left[-1] == 1 and len(left) > 1:
            left.pop()
            step.pop()
        try:
            left[-1] = exact_div(left[-1], extent)
        except ValueError:
            return None
        strides.append(step[-1])
        step[-1] = times(step[-1], extent)
    return replace(view, shape=tuple(shape), strides=tuple(reversed(strides)))


def collapse(
    shape: Sequence[Dim], strides: Sequence[Sequence[Dim]], keep_last: bool = False
) -> tuple[tuple[Dim, ...], list[tuple[Dim, ...]]]:
    """Merges adjacent dimensions that every one of several views of the same shape steps as one.

    Dimensions of extent 1 go; with `keep_last` the last one stays as it is, unmerged.
    Returns the new shape and the new strides of each view.
    """
    groups = collapse_groups(shape, strides, keep_last)
    merged = tuple(num_elements(shape[d] for d in group) for group in groups)
    return merged, [tuple(view[group[-1]] for group in groups) for view in strides]


def collapse_groups(
    shape: Sequence[Dim], strides: Sequence[Sequence[Dim]], keep_last: bool = False
) -> list[tuple[int, ...]]:
    """Which dimensions each dimension of `collapse`'s result is made of."""
    groups: list[tuple[int, ...]] = []
    last = len(shape) - 1
    for d, extent in enumerate(shape):
        kept = keep_last and d == last
        if extent == 1 and not kept:
            continue
        if groups and not kept and all(view[groups[-1][-1]] == times(view[d], extent) for view in strides):
            groups[-1] = (*groups[-1], d)
        else:
            groups.append((d,))
    return groups
