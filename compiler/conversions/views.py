"""Shapes: reshapes, permutations, slices, joins."""

from opennpu.compiler.conversions.table import (
    Unsupported,
    converts,
    normal_dim,
    promote,
    rank,
    static,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import Sym, dim, exact_div, num_elements

END = 2**63 - 1
"""What the schema's `end` holds for "to the end"."""

# ---- reshapes


@converts(
    "aten.clone",
    "aten.contiguous",
    "aten.detach",
    "aten.alias",
    "aten.dropout",
    "aten.lift_fresh_copy",
    "aten.lift_fresh",
    "aten.resolve_conj",
    "aten.native_dropout",
)
def identity(x, *_):
    return x


@converts("aten.view", "aten.reshape", "aten._unsafe_view")
def view(x, shape):
    return npu.reshape(x, resolved(shape, num_elements(npu.dims(x))))


def resolved(shape, total):
    """The shape with its one -1 replaced so that the elements are `total`."""
    if -1 not in shape:
        return shape
    missing = exact_div(total, num_elements(d for d in shape if d != -1))
    return [missing if d == -1 else d for d in shape]


@converts("aten.view_as", "aten.reshape_as")
def view_as(x, other):
    return npu.reshape(x, npu.dims(other))


@converts("aten.flatten.using_ints")
def flatten(x, start, end):
    shape, first, last = npu.dims(x), normal_dim(start, rank(x)), normal_dim(end, rank(x))
    return npu.reshape(x, [*shape[:first], num_elements(shape[first : last + 1]), *shape[last + 1 :]])


@converts("aten.unflatten.int")
def unflatten(x, axis, sizes):
    shape, axis = npu.dims(x), normal_dim(axis, rank(x))
    return npu.reshape(x, [*shape[:axis], *resolved(sizes, shape[axis]), *shape[axis + 1 :]])


@converts("aten.unsqueeze")
def unsqueeze(x, axis):
    shape, axis = npu.dims(x), normal_dim(axis, rank(x) + 1)
    return npu.reshape(x, [*shape[:axis], 1, *shape[axis:]])


@converts("aten.squeeze")
def squeeze(x):
    return npu.reshape(x, [d for d in npu.dims(x) if d != 1])


@converts("aten.squeeze.dim", "aten.squeeze.dims")
def squeeze_dims(x, axes):
    axes = {normal_dim(a, rank(x)) for a in (axes if isinstance(axes, list) else [axes])}
    return npu.reshape(x, [d for i, d in enumerate(npu.dims(x)) if i not in axes or d != 1])


# ---- permutations


@converts("aten.permute")
def permute(x, perm):
    return npu.transpose(x, [normal_dim(p, rank(x)) for p in perm])


@converts("aten.transpose.int")
def transpose(x, a, b):
    perm = list(range(rank(x)))
    a, b = normal_dim(a, rank(x)), normal_dim(b, rank(x))
    perm[a], perm[b] = perm[b], perm[a]
    return npu.transpose(x, perm)


@converts("aten.t", "aten.numpy_T")
def reverse_dims(x):
    return npu.transpose(x, list(reversed(range(rank(x)))))


# ---- broadcasts


@converts("aten.expand", "aten.broadcast_to")
def expand(x, shape, _implicit=False):
    own = (1,) * (len(shape) - rank(x)) + npu.dims(x)
    return npu.broadcast_to(x, [o if s == -1 else s for o, s in zip(own, shape, strict=True)])


@converts("aten.expand_as")
def expand_as(x, other):
    return npu.broadcast_to(x, npu.dims(other))


@converts("aten.repeat")
def repeat(x, counts):
    """Every dimension [d] as [1, d], broadcast to [n, d], joined."""
    shape = (1,) * (len(counts) - rank(x)) + npu.dims(x)
    spread = npu.reshape(x, [e for d in shape for e in (1, d)])
    spread = npu.broadcast_to(spread, [e for n, d in zip(counts, shape, strict=True) for e in (n, d)])
    return npu.reshape(spread, [dim(n * d) for n, d in zip(counts, shape, strict=True)])


@converts("aten.repeat_interleave.self_int")
def repeat_interleave(x, count, axis, _size=None):
    if axis is None:
        x, axis = npu.reshape(x, [num_elements(npu.dims(x))]), 0
    axis, shape = normal_dim(axis, rank(x)), npu.dims(x)
    before, extent, after = shape[:axis], shape[axis], shape[axis + 1 :]
    spread = npu.broadcast_to(npu.reshape(x, [*before, extent, 1, *after]), [*before, extent, count, *after])
    return npu.reshape(spread, [*before, dim(extent * count), *after])


# ---- slices


@converts("aten.slice.Tensor")
def slice_tensor(x, axis, start, end, step, result):
    axis = normal_dim(axis, rank(x))
    extent, expected = npu.dims(x)[axis], result.shape[axis]
    start = 0 if start is None else bounded(start, extent)
    end = extent if end is None else bounded(end, extent)
    if expected is not None:  # the exporter knows how far an end beyond the extent reaches
        return npu.slice_(x, axis, static(start, "the start of a slice"), expected, step)
    size = dim(Sym.of(end) - start) if step == 1 else ceildiv(dim(Sym.of(end) - start), step)
    return npu.slice_(x, axis, static(start, "the start of a slice"), size, step)


def bounded(position, extent):
    """A position of a slice counted from the front, within the extent where that can be told."""
    if isinstance(position, int):
        if position == END:
            return extent
        if position < 0:
            return dim(Sym.of(extent) + position) if isinstance(extent, Sym) else max(extent + position, 0)
        return min(position, extent) if isinstance(extent, int) else position
    return position


def ceildiv(size, step):
    if isinstance(size, int):
        return -(-size // step)
    raise Unsupported(f"a slice of {size} elements by steps of {step}")


@converts("aten.narrow")
def narrow(x, axis, start, length):
    axis = normal_dim(axis, rank(x))
    start = bounded(start, npu.dims(x)[axis])
    return npu.slice_(x, axis, static(start, "the start of a slice"), length)


@converts("aten.select.int")
def select(x, axis, index):
    axis, shape = normal_dim(axis, rank(x)), npu.dims(x)
    index = static(bounded(index, shape[axis]), "the index")
    return npu.reshape(npu.slice_(x, axis, index, 1), [*shape[:axis], *shape[axis + 1 :]])


def cut(x, axis, sizes):
    """Pieces of these sizes along the axis."""
    pieces, offset = [], 0
    for size in sizes:
        pieces.append(npu.slice_(x, axis, static(offset, "the start of a piece"), size))
        offset = dim(Sym.of(offset) + size)
    return [pieces]


@converts("aten.split_with_sizes", "aten.split.sizes")
def split_with_sizes(x, sizes, axis=0):
    return cut(x, normal_dim(axis, rank(x)), sizes)


@converts("aten.split.Tensor", "aten.split")
def split(x, size, axis=0):
    axis = normal_dim(axis, rank(x))
    extent = static(npu.dims(x)[axis], "the extent that is split")
    return cut(x, axis, [min(size, extent - start) for start in range(0, extent, size)])


@converts("aten.chunk")
def chunk(x, count, axis):
    axis = normal_dim(axis, rank(x))
    extent = npu.dims(x)[axis]
    size = exact_div(extent, count) if isinstance(extent, Sym) else -(-extent // count)
    return split(x, size, axis) if isinstance(extent, int) else cut(x, axis, [size] * count)


@converts("aten.unbind.int")
def unbind(x, axis):
    count = static(npu.dims(x)[normal_dim(axis, rank(x))], "the extent that is split")
    return [[select(x, axis, i) for i in range(count)]]


# ---- joins


@converts("aten.constant_pad_nd")
def constant_pad(x, pads, value):
    """`pads`: what is added before and after the last dimension, the one before it, …; less than 0 cuts."""
    for axis, before, after in zip(reversed(range(rank(x))), pads[::2], pads[1::2], strict=False):
        extent = npu.dims(x)[axis]
        size = dim(Sym.of(extent) + min(before, 0) + min(after, 0))
        if size != extent:
            x = npu.slice_(x, axis, max(-before, 0), size)
        joined = [filled_along(x, axis, before, value), x, filled_along(x, axis, after, value)]
        x = npu.concat([part for part in joined if part is not None], axis)
    return x


@converts("aten.pad")
def pad(x, pads, mode, value):
    if mode != "constant":
        raise Unsupported(f"a padding by {mode}")
    return constant_pad(x, pads, 0 if value is None else value)


def filled_along(x, axis, count, value):
    """x's extents but `count` along the axis, all `value`; None of no elements."""
    shape = npu.dims(x)
    return (
        npu.constant(value, [*shape[:axis], count, *shape[axis + 1 :]], npu.dtype(x)) if count > 0 else None
    )


@converts("aten.cat")
def cat(xs, axis):
    element = promote(*xs)
    xs = [x for x in xs if npu.dims(x) != (0,)] or xs[:1]  # PyTorch lets an empty vector join anything
    return npu.concat([npu.cast(x, element) for x in xs], normal_dim(axis, rank(xs[0])))


@converts("aten.stack")
def stack(xs, axis):
    return cat([unsqueeze(x, normal_dim(axis, rank(xs[0]) + 1)) for x in xs], axis)
