"""Reductions, softmax and normalisation."""

import math

from opennpu.compiler.conversions.elementwise import bitwise_not, isinf
from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    is_float,
    normal_dim,
    promote,
    rank,
    to_last,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import exact_div, num_elements


def reduce_dims(op, x, dims, keepdim):
    """Over several dimensions, all when `dims` is empty or None, one after the other.

    bf16 stays f32 in between, so that the result is rounded once.
    """
    element = npu.dtype(x)
    if rank(x) == 0:
        return x
    if element == "i1":
        x = npu.cast(x, "i8")
    axes = sorted({normal_dim(d, rank(x)) for d in dims or range(rank(x))}, reverse=True)
    if len(axes) > 1 and element == "bf16":
        x = npu.cast(x, "f32")
    for axis in axes:
        x = npu.reduce(op, x, axis, keepdim)
    return npu.cast(x, element)


@converts("aten.sum.dim_IntList", op="sum")
@converts("aten.mean.dim", op="mean")
def reduce_sum(x, dims, keepdim, dtype, result, op):
    return reduce_dims(op, npu.cast(x, result.dtype), dims, keepdim)


@converts("prims.sum")
def reduce_dims_sum(x, dims, output_dtype=None):
    return reduce_dims("sum", x, dims, False)


@converts("aten.sum", op="sum")
@converts("aten.mean", op="mean")
def reduce_all(x, dtype, result, op):
    return reduce_dims(op, npu.cast(x, result.dtype), None, False)


@converts("aten.count_nonzero.dim_IntList")
def count_nonzero(x, dims):
    zero = as_tensor(False if npu.dtype(x) == "i1" else 0.0 if is_float(npu.dtype(x)) else 0, npu.dtype(x))
    return reduce_dims("sum", npu.cast(npu.binary("ne", x, zero), "i64"), dims, False)


@converts("aten.amax", op="max")
@converts("aten.amin", op="min")
def extreme(x, dims, keepdim, op):
    return reduce_dims(op, x, dims, keepdim)


@converts("aten.max", op="max")
@converts("aten.min", op="min")
def extreme_all(x, op):
    return reduce_dims(op, x, None, False)


@converts("aten.aminmax")
def both_extremes(x, dim, keepdim):
    dims = None if dim is None else [dim]
    return [reduce_dims(op, x, dims, keepdim) for op in ("min", "max")]


@converts("aten.max.dim", op="max")
@converts("aten.min.dim", op="min")
def extreme_dim(x, dim, keepdim, op):
    return [reduce_dims(op, x, [dim], keepdim), arg_extreme(x, dim, keepdim, op)]


@converts("aten.argmax", op="max")
@converts("aten.argmin", op="min")
def arg_extreme(x, dim, keepdim, op):
    if rank(x) == 0:
        return npu.constant(0, [], "i64")
    if npu.dtype(x) == "i1":
        x = npu.cast(x, "i8")
    if op == "min":  # the order turned round, exactly for integers too
        x = npu.unary("neg", x) if is_float(npu.dtype(x)) else bitwise_not(x)
    if dim is not None:
        return npu.reduce("argmax", x, normal_dim(dim, rank(x)), keepdim)
    first = npu.reduce("argmax", npu.reshape(x, [num_elements(npu.dims(x))]), 0)
    return npu.reshape(first, [1] * rank(x)) if keepdim else first


BITS = {"i64": 64, "i32": 32, "i8": 8}
MOST_ROUNDS = 16


@converts("aten.topk")
def top(x, k, axis, largest, _sorted):
    """One after the other: the greatest, then that of what is left."""
    element = npu.dtype(x)
    if not isinstance(k, int) or k > MOST_ROUNDS or rank(x) == 0 or not largest or element == "i1":
        raise Unsupported(f"other than the greatest elements, at most {MOST_ROUNDS}")
    axis = normal_dim(axis, rank(x))
    moved, back = to_last(x, axis)
    last, values, indices = rank(x) - 1, [], []
    least = as_tensor(-math.inf if is_float(element) else -(2 ** (BITS[element] - 1)), element)
    free = npu.constant(1, npu.dims(moved), "i1")
    for _ in range(k):
        rest = npu.select(free, moved, least)
        value = npu.reduce("max", rest, last, True)
        first_free = npu.reduce("argmax", npu.cast(free, "i8"), last, True)  # where only the least are left
        all_least = npu.binary("eq", value, least)
        index = npu.select(all_least, first_free, npu.reduce("argmax", rest, last, True))
        number = npu.iota([npu.dims(moved)[-1]], 0, "i64")
        free = npu.binary("and", free, npu.binary("ne", number, index))
        values.append(value)
        indices.append(index)
    return [npu.transpose(npu.concat(parts, last), back) for parts in (values, indices)]


@converts("aten.any.dim", "aten.any.dims", "aten.any", op="max")
@converts("aten.all.dim", "aten.all", op="min")
def any_all(x, dims=None, keepdim=False, op=""):
    dims = [dims] if isinstance(dims, int) else dims
    return reduce_dims(op, npu.cast(x, "i1"), dims, keepdim)


@converts("aten.var.correction")
@converts("aten.std.correction", root=True)
@converts("aten.var.dim")
@converts("aten.std.dim", root=True)
def variance(x, dims, correction, keepdim, root=False):
    """`correction`: what is taken from the number of elements, None for 1; a bool as such.

    In f32 until the result: differences from a mean that is rounded to bf16 say little.
    """
    wide = npu.cast(x, "f32")
    total = reduce_dims("sum", npu.unary("square", centred(wide, dims)), dims, keepdim)
    degrees = npu.binary(
        "sub", number_of_elements(x, dims), as_tensor(float(1 if correction is None else correction), "f32")
    )
    y = npu.binary("div", total, npu.binary("max", degrees, as_tensor(0.0, "f32")))
    return npu.unary("sqrt", y) if root else y


@converts("aten.var_mean.correction")
@converts("aten.std_mean.correction", root=True)
def variance_and_mean(x, dims, correction, keepdim, root=False):
    mean = reduce_dims("mean", npu.cast(x, "f32"), dims, keepdim)
    return [variance(x, dims, correction, keepdim, root), mean]


def centred(x, dims):
    return npu.binary("sub", x, reduce_dims("mean", x, dims, True))


def number_of_elements(x, dims):
    """How many elements a reduction over these dimensions takes, as a 0-d f32."""
    dims = [normal_dim(d, rank(x)) for d in dims or range(rank(x))] if rank(x) else []
    count = num_elements(npu.dims(x)[d] for d in dims)
    return npu.extent(count, "f32")


@converts("aten.linalg_vector_norm")
def vector_norm(x, order, dims, keepdim, _dtype):
    """In f32 inside. The norm of order 0 is the number of elements that are not 0."""
    size = npu.unary("abs", npu.cast(x, "f32"))
    if abs(order) == math.inf:
        return reduce_dims("max" if order > 0 else "min", size, dims, keepdim)
    if order == 0:
        return reduce_dims("sum", npu.unary("sign", size), dims, keepdim)
    if order == 1:
        return reduce_dims("sum", size, dims, keepdim)
    if order == 2:
        return npu.unary("sqrt", reduce_dims("sum", npu.unary("square", size), dims, keepdim))
    power = reduce_dims("sum", npu.binary("pow", size, as_tensor(float(order), "f32")), dims, keepdim)
    return npu.binary("pow", power, as_tensor(1 / order, "f32"))


@converts("aten.logsumexp")
def log_sum_exp(x, dims, keepdim):
    x = npu.cast(x, "f32")
    top = reduce_dims("max", x, dims, True)
    shift = npu.select(isinf(top), as_tensor(0.0, "f32"), top)  # infinity less itself is no number
    total = reduce_dims("sum", npu.unary("exp", npu.binary("sub", x, shift)), dims, True)
    y = npu.binary("add", npu.unary("log", total), shift)
    if keepdim or rank(x) == 0:
        return y
    gone = {normal_dim(d, rank(x)) for d in dims or range(rank(x))}
    return npu.reshape(y, [n for d, n in enumerate(npu.dims(y)) if d not in gone])


# ---- softmax and running sums


@converts("aten.searchsorted.Tensor")
def searchsorted(edges, values, out_int32=False, right=False, side=None, sorter=None):
    """How many edges are less than each value (or equal, from the right); every one is compared."""
    if rank(edges) != 1 or sorter is not None:
        raise Unsupported("edges of several dimensions, or not in order")
    shape = npu.dims(values)
    each, edges = npu.reshape(values, [*shape, 1]), npu.cast(edges, promote(edges, values))
    relation = "le" if right or side == "right" else "lt"
    before = npu.binary(relation, edges, npu.cast(each, npu.dtype(edges)))
    return npu.reduce("sum", npu.cast(before, "i32" if out_int32 else "i64"), len(shape))


@converts("aten.cumsum")
def cumsum(x, dim, _dtype, result):
    x = npu.cast(x, result.dtype)
    if rank(x) == 0:
        return x
    moved, back = to_last(x, normal_dim(dim, rank(x)))
    return npu.transpose(npu.cumsum(moved), back)


@converts("aten.softmax.int", "aten._softmax")
def softmax(x, dim, _, result):
    if rank(x) == 0:
        return npu.reshape(softmax(npu.reshape(x, [1]), 0, False, result=result), [])
    moved, back = to_last(npu.cast(x, result.dtype), normal_dim(dim, rank(x)))
    return npu.transpose(npu.softmax(moved), back)


@converts("aten.log_softmax.int", "aten._log_softmax")
def log_softmax(x, dim, _, result):
    x = npu.cast(npu.cast(x, result.dtype), "f32")
    if rank(x) == 0:
        return npu.binary("sub", x, x)
    axis = normal_dim(dim, rank(x))
    shifted = npu.binary("sub", x, npu.reduce("max", x, axis, True))
    total = npu.reduce("sum", npu.unary("exp", shifted), axis, True)
    return npu.binary("sub", shifted, npu.unary("log", total))


# ---- normalisation


@converts("aten.layer_norm")
def layer_norm(x, shape, w, b, eps, _cudnn):
    size = num_elements(shape)
    w = npu.constant(1.0, [size], npu.dtype(x)) if w is None else npu.reshape(w, [size])
    b = npu.constant(0.0, [size], npu.dtype(x)) if b is None else npu.reshape(b, [size])
    return over_rows(x, shape, lambda rows: npu.layer_norm(rows, w, b, eps))


@converts("aten.native_layer_norm")
def native_layer_norm(x, shape, w, b, eps):
    """With the mean and the inverse deviation of each row, which nothing computes unless they are used."""
    dims = list(range(rank(x) - len(shape), rank(x)))
    wide = npu.cast(x, "f32")
    power = reduce_dims("mean", npu.unary("square", centred(wide, dims)), dims, True)
    inverse = npu.unary("rsqrt", npu.binary("add", power, as_tensor(float(eps), "f32")))
    return [layer_norm(x, shape, w, b, eps, False), reduce_dims("mean", wide, dims, True), inverse]


@converts("aten.native_group_norm")
def native_group_norm(x, w, b, batch, channels, _size, groups, eps):
    """x [N, C, …]: a norm of every group of channels, then a factor and a term for every channel."""
    shape = npu.dims(x)
    wide = npu.reshape(npu.cast(x, "f32"), [batch, groups, exact_div(num_elements(shape[1:]), groups)])
    rest = centred(wide, [2])
    power = reduce_dims("mean", npu.unary("square", rest), [2], True)
    inverse = npu.unary("rsqrt", npu.binary("add", power, as_tensor(float(eps), "f32")))
    y = npu.reshape(npu.binary("mul", rest, inverse), shape)
    mean = reduce_dims("mean", wide, [2], False)
    return [by_channel(y, w, b), mean, npu.reshape(inverse, [batch, groups])]


@converts("aten.batch_norm")
def batch_norm(x, w, b, mean, variance, training, _momentum, eps, _cudnn):
    """Of inference: by the running mean and variance of every channel of x [N, C, …]."""
    if training or mean is None:
        raise Unsupported("the statistics of a batch")
    wide = by_channel(npu.cast(x, "f32"), None, npu.unary("neg", npu.cast(mean, "f32")))
    power = npu.binary("add", npu.cast(variance, "f32"), as_tensor(float(eps), "f32"))
    return by_channel(by_channel(wide, npu.unary("rsqrt", power), None), w, b)


@converts("aten.native_batch_norm")
def native_batch_norm(x, w, b, mean, variance, training, momentum, eps):
    """What it saves for training has no meaning here."""
    saved = npu.constant(0.0, [npu.dims(x)[1]], "f32")
    return [batch_norm(x, w, b, mean, variance, training, momentum, eps, False), saved, saved]


@converts("aten._native_batch_norm_legit_no_training")
def batch_norm_of_inference(x, w, b, mean, variance, momentum, eps):
    empty = npu.constant(0.0, [0], "f32")
    return [batch_norm(x, w, b, mean, variance, False, momentum, eps, False), empty, empty]


def by_channel(x, factor, term):
    """x [N, C, …] times a factor plus a term [C], each where there is one, in f32."""
    for op, value in (("mul", factor), ("add", term)):
        if value is not None:
            spread = npu.reshape(npu.cast(value, "f32"), [1, *npu.dims(value), *[1] * (rank(x) - 2)])
            x = npu.binary(op, x, spread)
    return x


@converts("aten.rms_norm")
def rms_norm(x, shape, w, eps):
    size = num_elements(shape)
    w = npu.constant(1.0, [size], npu.dtype(x)) if w is None else npu.reshape(w, [size])
    if eps is None:
        eps = 2.0**-23 if npu.dtype(x) == "f32" else 2.0**-7  # torch.finfo(x.dtype).eps
    return over_rows(x, shape, lambda rows: npu.rms_norm(rows, w, eps))


def over_rows(x, shape, build):
    """`build` on x with the last len(shape) dimensions as one."""
    if not is_float(npu.dtype(x)):
        raise Unsupported(f"a norm of {npu.dtype(x)}")
    outer = npu.dims(x)[: rank(x) - len(shape)]
    rows = npu.reshape(x, [*outer, num_elements(shape)])
    return npu.reshape(build(rows), npu.dims(x))
