"""Tensors of which some elements are replaced: the result is a new tensor."""

from opennpu.compiler.conversions.indexing import flat_index, from_front
from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    index_tensor,
    inverse,
    is_float,
    normal_dim,
    rank,
    static,
    to_last,
)
from opennpu.compiler.conversions.views import END, bounded
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim, Sym, dim, num_elements
from torch_mlir import ir

MOST_ADDED = 256
"""Of every element it is asked whether each index names it; with more the host is faster."""


@converts("aten.index_copy")
def index_copy(x, axis, index, source):
    if rank(x) == 0 or rank(index) == 0:
        raise Unsupported("an element named by a number")
    axis = normal_dim(axis, rank(x))
    perm = [axis, *(i for i in range(rank(x)) if i != axis)]
    rows = npu.put_rows(npu.transpose(x, perm), index, npu.transpose(source, perm))
    return npu.transpose(rows, inverse(perm))


@converts("aten.index_put")
def index_put(x, indices, values, accumulate=False):
    """x with its elements x[i, j] replaced, for one index or two neighbouring ones; a mask, by one value."""
    values = npu.cast(values, npu.dtype(x))
    axes = [axis for axis, t in enumerate(indices) if t is not None]
    if accumulate:
        raise Unsupported("values that are added up")
    if len(axes) == 1 and npu.dtype(indices[axes[0]]) == "i1":
        return put_masked(x, axes[0], indices[axes[0]], values)
    if len(axes) > 2 or axes[-1] - axes[0] >= len(axes):
        raise Unsupported("more than two indices, or two that are no neighbours")
    first, shape = axes[0], npu.dims(x)
    given = [from_front(index_tensor(indices[axis]), shape[axis]) for axis in axes]
    extents = [shape[axis] for axis in axes]
    index = within(flat_index(given, extents), given, extents)
    rest = [axis for axis in range(rank(x)) if axis not in axes]
    wanted = npu.dims(index)
    values = npu.broadcast_to(values, [*shape[:first], *wanted, *shape[axes[-1] + 1 :]])
    chosen = [*range(first, first + len(wanted))]
    values = npu.transpose(values, [*chosen, *(i for i in range(rank(values)) if i not in chosen)])
    count = num_elements(wanted)
    values = npu.reshape(values, [count, *(shape[axis] for axis in rest)])
    perm = [*axes, *rest]
    rows = npu.put_rows(npu.transpose(x, perm), npu.reshape(index, [count]), values, len(axes))
    return npu.transpose(rows, inverse(perm))


def put_masked(x, axis, mask, value):
    """x with the value where the mask, which lies along x's dimensions from the axis on, holds."""
    if num_elements(npu.dims(value)) != 1:
        raise Unsupported("a mask with several values; which goes where would depend on data")
    missing = rank(x) - axis - rank(mask)
    mask = npu.reshape(mask, [*npu.dims(mask), *[1] * missing])
    return npu.select(mask, npu.reshape(value, []), x)


@converts("aten.scatter.src", "aten.scatter.value")
def scatter(x, axis, index, source):
    """x with its element index[…, m] along the axis replaced by element m of the source; of several, one."""
    axis, shape, wanted = normal_dim(axis, rank(x)), npu.dims(x), npu.dims(index)
    if rank(x) == 0:
        raise Unsupported("a scatter of a number")
    source = cut(source if isinstance(source, ir.Value) else as_tensor(source, npu.dtype(x)), wanted)
    places = [
        index if d == axis else npu.iota([wanted[d], *[1] * (rank(x) - d - 1)], 0, npu.dtype(index))
        for d in range(rank(x))
    ]
    count, leading = num_elements(wanted), min(rank(x), 2)
    rows = npu.broadcast_to(within(flat_index(places, shape), [index], [shape[axis]]), wanted)
    source = npu.reshape(npu.cast(source, npu.dtype(x)), [count])
    flat = x if rank(x) == leading else npu.reshape(x, [num_elements(shape[:-1]), shape[-1]])
    return npu.reshape(npu.put_rows(flat, npu.reshape(rows, [count]), source, leading), shape)


def within(flat, indices, extents):
    """The flat index where each of these lies within its extent; else -1, which no DMA takes for a row."""
    element = npu.dtype(flat)
    for index, extent in zip(indices, extents, strict=True):
        index = npu.cast(index, element)
        inside = npu.binary("lt", index, npu.extent(extent, element))
        inside = npu.binary("and", inside, npu.binary("ge", index, npu.constant(0, [], element)))
        flat = npu.select(inside, flat, npu.constant(-1, [], element))
    return flat


@converts("aten.scatter_add")
def scatter_add(x, axis, index, source):
    """x with element m of the source added to its element index[…, m] along the axis; in f32 inside."""
    element = npu.dtype(x)
    if rank(x) == 0 or element == "i1":
        raise Unsupported("a sum of a number, or of bools")
    axis = normal_dim(axis, rank(x))
    wanted, shape = npu.dims(index), npu.dims(x)
    if static(wanted[axis], "the number of elements to add") > MOST_ADDED:
        raise Unsupported(f"more than {MOST_ADDED} elements to add along a dimension")
    if any(a != b for d, (a, b) in enumerate(zip(wanted, shape, strict=True)) if d != axis):
        raise Unsupported(f"an index {npu.show(wanted)} for {npu.show(shape)}")
    source = npu.cast(cut(source, wanted), "f32" if is_float(element) else element)
    x, back = to_last(npu.cast(x, npu.dtype(source)), axis)
    index, source = to_last(index, axis)[0], to_last(source, axis)[0]
    *outer, count = npu.dims(source)
    each = npu.reshape(source, [*outer, 1, count])
    terms = npu.select(names(x, index), each, as_tensor(0, npu.dtype(x)))
    total = npu.binary("add", x, npu.reduce("sum", terms, rank(x)))
    return npu.transpose(npu.cast(total, element), back)


def cut(source, wanted):
    """The source, of which only as much counts as the index has; a number for every place of it."""
    source = npu.broadcast_to(source, wanted) if rank(source) == 0 else source
    for d, (have, want) in enumerate(zip(npu.dims(source), wanted, strict=True)):
        source = source if have == want else npu.slice_(source, d, 0, want)
    return source


def names(x, index):
    """x […, N], index […, M] → bools […, N, M]: whether the index m names the element n."""
    *outer, count = npu.dims(index)
    numbers = npu.iota([npu.dims(x)[-1], 1], 0, npu.dtype(index))
    return npu.binary("eq", numbers, npu.reshape(index, [*outer, 1, count]))


@converts("aten.slice_scatter")
def slice_scatter(x, source, axis=0, start=None, end=None, step=1):
    axis = normal_dim(axis, rank(x))
    extent = npu.dims(x)[axis]
    start = static(bounded(start or 0, extent), "the start of a slice")
    end = bounded(END if end is None else end, extent)
    if step != 1:
        raise Unsupported(f"a slice by steps of {step}")
    return put(x, source, axis, start, end)


@converts("aten.select_scatter")
def select_scatter(x, source, axis, index):
    axis = normal_dim(axis, rank(x))
    shape = npu.dims(x)
    index = static(bounded(index, shape[axis]), "the index")
    return put(x, npu.reshape(source, [*shape[:axis], 1, *shape[axis + 1 :]]), axis, index, index + 1)


def put(x, source, axis: int, start: int, end: Dim):
    """x with its elements from start to end along the axis replaced."""
    extent = npu.dims(x)[axis]
    source = npu.cast(source, npu.dtype(x))
    if end == extent:
        return source if start == 0 else npu.concat([npu.slice_(x, axis, 0, start), source], axis)
    rest = npu.slice_(x, axis, static(end, "the end of a slice"), dim(Sym.of(extent) - end))
    return npu.concat([*([npu.slice_(x, axis, 0, start)] if start else []), source, rest], axis)
