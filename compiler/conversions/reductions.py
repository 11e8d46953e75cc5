"""Reductions, softmax and normalisation."""

from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    is_float,
    normal_dim,
    rank,
    static,
    to_last,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import num_elements


def reduce_dims(op, x, dims, keepdim):
    """Over several dimensions, all when `dims` is empty or None, one after the other.

    bf16 stays f32 in between, so that the result is rounded once.
    """
    element = npu.dtype(x)
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


@converts("aten.sum", op="sum")
@converts("aten.mean", op="mean")
def reduce_all(x, dtype, result, op):
    return reduce_dims(op, npu.cast(x, result.dtype), None, False)


@converts("aten.amax", op="max")
@converts("aten.amin", op="min")
def extreme(x, dims, keepdim, op):
    return reduce_dims(op, x, dims, keepdim)


@converts("aten.max", op="max")
@converts("aten.min", op="min")
def extreme_all(x, op):
    return reduce_dims(op, x, None, False)


@converts("aten.max.dim")
def max_dim(x, dim, keepdim):
    axis = normal_dim(dim, rank(x))
    return [npu.reduce("max", x, axis, keepdim), npu.reduce("argmax", x, axis, keepdim)]


@converts("aten.argmax")
def argmax(x, dim, keepdim):
    if dim is None:
        x, dim = npu.reshape(x, [num_elements(npu.dims(x))]), 0
    return npu.reduce("argmax", x, normal_dim(dim, rank(x)), keepdim)


@converts("aten.any.dim", "aten.any.dims", "aten.any", op="max")
@converts("aten.all.dim", "aten.all", op="min")
def any_all(x, dims=None, keepdim=False, op=""):
    dims = [dims] if isinstance(dims, int) else dims
    return npu.cast(reduce_dims(op, npu.cast(npu.cast(x, "i1"), "i32"), dims, keepdim), "i1")


@converts("aten.var.correction")
@converts("aten.std.correction", root=True)
@converts("aten.var.dim")
@converts("aten.std.dim", root=True)
def variance(x, dims, correction, keepdim, root=False):
    """`correction`: what is taken from the number of elements, None for 1; a bool as such.

    In f32 until the result: differences from a mean that is rounded to bf16 say little.
    """
    axes = [normal_dim(d, rank(x)) for d in dims or range(rank(x))]
    count = static(num_elements(npu.dims(x)[a] for a in axes), "the number of elements")
    wide = npu.cast(x, "f32")
    centred = npu.binary("sub", wide, reduce_dims("mean", wide, axes, True))
    total = reduce_dims("sum", npu.unary("square", centred), axes, keepdim)
    degrees = float(count - (1 if correction is None else correction))
    y = npu.binary("div", total, as_tensor(degrees, "f32"))
    return npu.unary("sqrt", y) if root else y


@converts("aten.linalg_vector_norm")
def vector_norm(x, order, dims, keepdim, _dtype):
    if order != 2:
        raise Unsupported(f"the norm of order {order}")
    return npu.unary("sqrt", reduce_dims("sum", npu.unary("square", npu.cast(x, "f32")), dims, keepdim))


# ---- softmax


@converts("aten.softmax.int", "aten._softmax")
def softmax(x, dim, _, result):
    moved, back = to_last(npu.cast(x, result.dtype), normal_dim(dim, rank(x)))
    return npu.transpose(npu.softmax(moved), back)


@converts("aten.log_softmax.int", "aten._log_softmax")
def log_softmax(x, dim, _, result):
    axis = normal_dim(dim, rank(x))
    x = npu.cast(npu.cast(x, result.dtype), "f32")
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
    """Its mean and inverse deviation serve training; they have no value here."""
    return [layer_norm(x, shape, w, b, eps, False), None, None]


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
