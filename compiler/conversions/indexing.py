"""Selection of elements by tensors of indices.

Indices count from the front; PyTorch's negative ones are not looked for.
"""

from opennpu.compiler.conversions.table import (
    Unsupported,
    converts,
    index_tensor,
    normal_dim,
    rank,
    to_last,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import dim, num_elements


@converts("aten.embedding")
def embedding(table, index, *_):
    return npu.gather(table, index)


@converts("aten.index_select")
def index_select(x, axis, index):
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
    axis, shape, wanted = normal_dim(axis, rank(x)), npu.dims(x), npu.dims(index)
    for i in range(rank(x)):
        if i != axis and wanted[i] != shape[i]:
            x = npu.slice_(x, i, 0, wanted[i])
    moved, back = to_last(x, axis)
    return npu.transpose(npu.take(moved, to_last(index, axis)[0]), back)


@converts("aten.index.Tensor", "aten.index.Tensor_hacked_twin")
def index(x, indices):
    given = [(i, index_tensor(t)) for i, t in enumerate(indices) if t is not None]
    if len(given) == 1:
        return gather_along(x, *given[0])
    axes = [axis for axis, _ in given]
    if axes == [0, 1] and rank(x) == 2:
        return pick(x, *(t for _, t in given))
    if axes == list(range(len(axes))):
        return gather_flat(x, [t for _, t in given])
    raise Unsupported(f"indices of the dimensions {axes} of {rank(x)}")


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
    flat = indices[0]
    for extent, following in zip(shape[1:count], indices[1:], strict=True):
        if not isinstance(extent, int):
            raise Unsupported(f"indices of {count} dimensions, one of them of extent {extent}")
        stride = npu.constant(extent, [], npu.dtype(flat))
        flat = npu.binary("add", npu.binary("mul", flat, stride), npu.cast(following, npu.dtype(flat)))
    return npu.gather(npu.reshape(x, [num_elements(shape[:count]), *shape[count:]]), flat)


@converts("aten.flip")
def flip(x, axes):
    for axis in (normal_dim(a, rank(x)) for a in axes):
        extent = npu.dims(x)[axis]
        if not isinstance(extent, int):
            raise Unsupported(f"a flip of the extent {extent}")
        x = gather_along(x, axis, npu.iota([extent], 0, "i64", dim(extent - 1), -1))
    return x
