"""Tensors of which some elements are replaced: the result is a new tensor."""

from opennpu.compiler.conversions.indexing import gather_along
from opennpu.compiler.conversions.table import Unsupported, converts, index_tensor, normal_dim, rank, static
from opennpu.compiler.conversions.views import END, bounded
from opennpu.dialects import npu
from opennpu.dialects.symbols import Dim, Sym, dim


@converts("aten.index_copy")
def index_copy(x, axis, index, source):
    return replace(x, normal_dim(axis, rank(x)), index, source)


@converts("aten.index_put")
def index_put(x, indices, values, accumulate=False):
    given = [(i, index_tensor(t)) for i, t in enumerate(indices) if t is not None]
    if accumulate or len(given) != 1 or rank(given[0][1]) != 1:
        raise Unsupported("other than rows of one dimension, replaced")
    return replace(x, *given[0], values)


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
