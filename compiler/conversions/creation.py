"""Tensors from nothing but numbers and extents."""

import math

from opennpu.compiler.conversions.table import as_tensor, converts, is_float, static
from opennpu.compiler.conversions.table import rank as rank_of
from opennpu.dialects import npu
from opennpu.dialects.symbols import Sym, dim


@converts("aten.arange")
def arange(end, *_, result):
    return arange_step(0, end, 1, result=result)


@converts("aten.arange.start")
def arange_start(start, end, *_, result):
    return arange_step(start, end, 1, result=result)


@converts("aten.arange.start_step")
def arange_step(start, end, step, *_, result):
    if isinstance(start, float) or isinstance(step, float):
        count = npu.iota([math.ceil((end - start) / step)], 0, "f32")
        scaled = npu.binary("mul", count, as_tensor(float(step), "f32"))
        return npu.cast(npu.binary("add", scaled, as_tensor(float(start), "f32")), result.dtype)
    start = static(start, "the start of a range")
    size = dim(Sym.of(math.ceil(end) if isinstance(end, float) else end) - start)
    if step != 1:
        size = -(-static(size, "the length of a range") // step)
    return npu.iota([size], 0, result.dtype, start, step)


@converts("aten.full")
def full(shape, value, *_, result):
    return npu.constant(value, shape, result.dtype)


@converts("aten.zeros", "aten.empty.memory_format", value=0)
@converts("aten.ones", value=1)
def filled(shape, *_, result, value):
    return npu.constant(value, shape, result.dtype)


@converts("aten.full_like")
def full_like(x, value, *_, result):
    return npu.constant(value, npu.dims(x), result.dtype)


@converts("aten.zeros_like", "aten.empty_like", value=0)
@converts("aten.ones_like", value=1)
def filled_like(x, *_, result, value):
    return npu.constant(value, npu.dims(x), result.dtype)


@converts("aten.new_zeros", "aten.new_empty", value=0)
@converts("aten.new_ones", value=1)
def new_filled(x, shape, *_, result, value):
    return npu.constant(value, shape, result.dtype)


@converts("aten.new_full")
def new_full(x, shape, value, *_, result):
    return npu.constant(value, shape, result.dtype)


@converts("aten.scalar_tensor")
def scalar_tensor(value, *_, result):
    return npu.constant(value, [], result.dtype)


@converts("aten.tril", lower=True)
@converts("aten.triu", lower=False)
def triangle(x, diagonal, lower):
    """x below (above) the diagonal, 0 elsewhere."""
    rows, columns = npu.dims(x)[-2:]
    row = npu.iota([rows, 1], 0, "i32", diagonal)
    column = npu.iota([1, columns], 1, "i32")
    keep = npu.binary("le" if lower else "ge", column, row)
    if npu.dtype(x) == "i1":
        return npu.binary("and", x, keep)
    zero = npu.constant(0.0 if is_float(npu.dtype(x)) else 0, [1] * rank_of(x), npu.dtype(x))
    return npu.select(keep, x, zero)
