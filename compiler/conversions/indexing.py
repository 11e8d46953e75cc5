"""Selection of elements by tensors of indices.

The indices of `x[i, j]` may count from the end. Those of embedding, index_select and gather count from
the front, as PyTorch demands.
"""

from opennpu.compiler.conversions.table import (
    converts,
    index_tensor,
    normal_dim,
    rank,
    to_last,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import Sym, dim, num_elements


@converts("aten.embedding")
def embedding(table, index, *_):
    return npu.gather(table, index)


@converts("aten.index_select")
def index_select(x, axis, index):
    if rank(x) == 0:
        return x
    return gather_along(x, normal_dim(axis, rank(x)), index)


def gather_along(x, axis, index):
    """The index's dimensions in place of the axis."""
    first = [axis, *(i for i in range(rank(x)) if i != axis)]
    rows = npu.gather(npu.transpose(x, first), index)
    count = rank(index)
    # Where each dimension of the result lies in `rows`: those before the axis, the index's, the rest.
    perm = [*range(count, count + axis), *range(count), *range(count + axis, rank(rows))]
    return npu.transpose(rows, perm)


@converts("aten.gather")
def gather(x, axis, index, _sparse):
    if rank(x) == 0:
        return npu.reshape(x, npu.dims(index))
    axis, shape, wanted = normal_dim(axis, rank(x)), npu.dims(x), npu.dims(index)
    for i in range(rank(x)):
        if i != axis and wanted[i] != shape[i]:
            x = npu.slice_(x, i, 0, wanted[i])
    moved, back = to_last(x, axis)
    return npu.transpose(npu.take(moved, to_last(index, axis)[0]), back)


@converts("aten.index.Tensor", "aten.index.Tensor_hacked_twin")
def index(x, indices):
    axes = [axis for axis, t in enumerate(indices) if t is not None]
    given = [from_front(index_tensor(indices[axis]), npu.dims(x)[axis]) for axis in axes]
    if len(given) == 1:
        return gather_along(x, axes[0], given[0])
    if axes == [0, 1] and rank(x) == 2:
        return pick(x, *given)
    rest = [axis for axis in range(rank(x)) if axis not in axes]
    rows = gather_flat(npu.transpose(x, [*axes, *rest]), given)
    first = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0  # else the index's come first
    count = rank(rows) - len(rest)
    perm = [*range(count, count + first), *range(count), *range(count + first, rank(rows))]
    return npu.transpose(rows, perm)


def from_front(index, extent):
    """The index with the extent added where it is negative."""
    element = npu.dtype(index)
    behind = npu.binary("add", index, npu.extent(extent, element))
    return npu.select(npu.binary("lt", index, npu.constant(0, [], element)), behind, index)


def pick(x, rows, columns):
    """x[rows, columns] of a matrix, the indices broadcast: rows first, then along each row."""
    shape = npu.broadcast(npu.dims(rows), npu.dims(columns))
    if npu.dims(rows)[-1:] == (1,):  # one row for all columns of the last dimension
        rows = npu.reshape(rows, npu.dims(rows)[:-1])
        lines = npu.gather(x, rows)
        lines = npu.broadcast_to(lines, [*shape[:-1], npu.dims(x)[1]])
        return npu.take(lines, npu.broadcast_to(columns, shape))
    lines = npu.gather(x, npu.broadcast_to(rows, shape))
    single = npu.reshape(npu.broadcast_to(columns, shape), [*shape, 1])
    return npu.reshape(npu.take(lines, single), shape)


def gather_flat(x, indices):
    """x[i, j, …] for the leading dimensions: rows of x with those dimensions as one."""
    shape, count = npu.dims(x), len(indices)
    flat = npu.reshape(x, [num_elements(shape[:count]), *shape[count:]])
    return npu.gather(flat, flat_index(indices, shape[:count]))


def flat_index(indices, shape):
    """The index of x[i, j, …] among all its elements, for x of this shape; of the first index's dtype."""
    flat = indices[0]
    for extent, following in zip(shape[1:], indices[1:], strict=True):
        stride = npu.extent(extent, npu.dtype(flat))
        flat = npu.binary("add", npu.binary("mul", flat, stride), npu.cast(following, npu.dtype(flat)))
    return flat


@converts("aten.flip")
def flip(x, axes):
    for axis in (normal_dim(a, rank(x)) for a in axes):
        extent = npu.dims(x)[axis]
        last = npu.extent(dim(Sym.of(extent) - 1), "i64")
        x = gather_along(x, axis, npu.binary("sub", last, npu.iota([extent], 0, "i64")))
    return x
