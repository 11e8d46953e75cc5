"""Tensors of which some elements are replaced: the result is a new tensor."""

from opennpu.compiler.conversions.indexing import from_front, gather_along
from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    index_tensor,
    is_float,
    normal_dim,
    rank,
    static,
    to_last,
)
from opennpu.compiler.conversions.views import END, bounded
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim, Sym, dim
from torch_mlir import ir

MOST_SCATTERED = 256
"""Of every element it is asked whether each index names it; with more the host is faster."""


@converts("aten.index_copy")
def index_copy(x, axis, index, source):
    return replace(x, normal_dim(axis, rank(x)), index, source)


@converts("aten.index_put")
def index_put(x, indices, values, accumulate=False):
    given = [(i, index_tensor(t)) for i, t in enumerate(indices) if t is not None]
    if accumulate or len(given) != 1 or rank(given[0][1]) != 1:
        raise Unsupported("other than rows of one dimension, replaced")
    axis, index = given[0]
    return replace(x, axis, from_front(index, npu.dims(x)[axis]), values)


@converts("aten.scatter.src", "aten.scatter.value")
def scatter(x, axis, index, source):
    """x with its element index[…, m] along the axis replaced by element m of the source; of several, one."""
    x, index, source, back = rows_to_scatter(x, axis, index, source)
    named = npu.cast(names(x, index), "f32")
    last = rank(x)
    is_new = npu.binary("gt", npu.reduce("max", named, last), as_tensor(0.0, "f32"))
    found = npu.take(source, npu.reduce("argmax", named, last))
    return npu.transpose(npu.select(is_new, found, x), back)


@converts("aten.scatter_add")
def scatter_add(x, axis, index, source):
    """x with element m of the source added to its element index[…, m] along the axis; in f32 inside."""
    element = npu.dtype(x)
    x, index, source, back = rows_to_scatter(x, axis, index, source)
    if is_float(element):
        x, source = npu.cast(x, "f32"), npu.cast(source, "f32")
    *outer, count = npu.dims(source)
    each = npu.reshape(source, [*outer, 1, count])
    terms = npu.select(names(x, index), each, as_tensor(0, npu.dtype(x)))
    total = npu.binary("add", x, npu.reduce("sum", terms, rank(x)))
    return npu.transpose(npu.cast(total, element), back)


def rows_to_scatter(x, axis, index, source):
    """x, index and source with the axis last, the latter two of one shape; how to turn the result back."""
    if rank(x) == 0 or npu.dtype(x) == "i1":
        raise Unsupported("a scatter of a number, or of bools")
    axis = normal_dim(axis, rank(x))
    wanted, shape = npu.dims(index), npu.dims(x)
    if static(wanted[axis], "the number of elements to scatter") > MOST_SCATTERED:
        raise Unsupported(f"a scatter of more than {MOST_SCATTERED} elements along a dimension")
    if any(a != b for d, (a, b) in enumerate(zip(wanted, shape, strict=True)) if d != axis):
        raise Unsupported(f"an index {npu.show(wanted)} for {npu.show(shape)}")
    source = source if isinstance(source, ir.Value) else as_tensor(source, npu.dtype(x))
    source = npu.broadcast_to(source, wanted) if rank(source) == 0 else source
    for d, (have, want) in enumerate(zip(npu.dims(source), wanted, strict=True)):
        source = source if have == want else npu.slice_(source, d, 0, want)
    moved, back = to_last(x, axis)
    return moved, to_last(index, axis)[0], to_last(npu.cast(source, npu.dtype(x)), axis)[0], back


def names(x, index):
    """x […, N], index […, M] → bools […, N, M]: whether the index m names the element n."""
    *outer, count = npu.dims(index)
    numbers = npu.iota([npu.dims(x)[-1], 1], 0, npu.dtype(index))
    return npu.binary("eq", numbers, npu.reshape(index, [*outer, 1, count]))


def replace(x, axis: int, index, source):
    """x with its element `index[m]` along the axis replaced by element m of `source`, broadcast.

    Of every element of x is asked whether an index names it, and which.
    """
    shape = npu.dims(x)
    (count,) = npu.dims(index)
    source = npu.broadcast_to(npu.cast(source, npu.dtype(x)), [*shape[:axis], count, *shape[axis + 1 :]])
    numbers = npu.iota([shape[axis], 1], 0, npu.dtype(index))
    named = npu.cast(npu.binary("eq", numbers, npu.reshape(index, [1, count])), "f32")
    is_new = npu.binary("gt", npu.reduce("max", named, 1), npu.constant(0.0, [], "f32"))
    is_new = npu.reshape(is_new, [shape[axis], *[1] * (rank(x) - axis - 1)])
    return npu.select(is_new, gather_along(source, axis, npu.reduce("argmax", named, 1)), x)


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
