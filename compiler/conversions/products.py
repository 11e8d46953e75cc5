"""Matrix products and what is made of them."""

from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    is_float,
    promote,
    promoted,
    rank,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import dim, exact_div, num_elements


@converts("aten.linear")
def linear(x, w, bias):
    element = promote(x, w)
    x, w = npu.cast(x, element), npu.cast(w, element)
    if rank(x) == 1:
        return npu.reshape(linear(npu.reshape(x, [1, *npu.dims(x)]), w, bias), [npu.dims(w)[0]])
    y = batched(x, w, transpose_b=True)
    return y if bias is None else npu.binary("add", y, npu.cast(bias, element))


@converts("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot")
def matmul(a, b):
    a, b = promoted(a, b)
    if rank(a) == 1:
        y = matmul(npu.reshape(a, [1, *npu.dims(a)]), b)
        return npu.reshape(y, [*npu.dims(y)[:-2], *npu.dims(y)[-1:]] if rank(b) > 1 else [])
    if rank(b) == 1:
        y = matmul(a, npu.reshape(b, [*npu.dims(b), 1]))
        return npu.reshape(y, npu.dims(y)[:-1])
    return batched(a, b)


def batched(a, b, transpose_b=False, element=None):
    """a·b (a·bᵀ) with batch dimensions broadcast; a b of two dimensions needs none."""
    if not is_float(npu.dtype(a)):
        raise Unsupported(f"a matrix product of {npu.dtype(a)}")
    if rank(b) > 2:
        batch = npu.broadcast(npu.dims(a)[:-2], npu.dims(b)[:-2])
        a = npu.broadcast_to(a, [*batch, *npu.dims(a)[-2:]])
        b = npu.broadcast_to(b, [*batch, *npu.dims(b)[-2:]])
    if 0 in (*npu.dims(a), *npu.dims(b)):
        columns = npu.dims(b)[-2 if transpose_b else -1]
        return npu.constant(0.0, [*npu.dims(a)[:-1], columns], element or npu.dtype(a))
    return npu.matmul(a, b, transpose_w=transpose_b, element=element)


@converts("aten.addmm", "aten.addmv", "aten.baddbmm")
def addmm(bias, a, b, beta, alpha):
    y = matmul(a, b)
    y = y if alpha == 1 else npu.binary("mul", y, as_tensor(alpha, npu.dtype(y)))
    if beta == 0:
        return y
    bias = npu.cast(bias, npu.dtype(y))
    bias = bias if beta == 1 else npu.binary("mul", bias, as_tensor(beta, npu.dtype(y)))
    return npu.binary("add", y, bias)


# ---- convolution of patches


@converts("aten.convolution")
def convolution(x, w, bias, stride, padding, dilation, transposed, _output_padding, groups):
    if transposed or rank(x) != 4:
        raise Unsupported("a convolution other than of images")
    return conv2d(x, w, bias, stride, padding, dilation, groups)


@converts("aten.conv2d")
def conv2d(x, w, bias, stride, padding, dilation, groups):
    """Where the patches do not overlap, cut them out as rows and multiply."""
    (batch, channels, height, width), (features, _, kh, kw) = npu.dims(x), npu.dims(w)
    patches = stride == [kh, kw] and padding == [0, 0] and dilation == [1, 1] and groups == 1
    if not patches or (isinstance(height, int) and height % kh) or (isinstance(width, int) and width % kw):
        raise Unsupported("a convolution other than of patches side by side (stride = kernel, no padding)")
    rows, columns = exact_div(height, kh), exact_div(width, kw)
    x = npu.reshape(x, [batch, channels, rows, kh, columns, kw])
    x = npu.transpose(x, [0, 2, 4, 1, 3, 5])
    depth = num_elements([channels, kh, kw])
    x = npu.reshape(x, [batch, dim(rows * columns), depth])
    y = linear(x, npu.reshape(w, [features, depth]), bias)
    return npu.reshape(npu.transpose(y, [0, 2, 1]), [batch, features, rows, columns])
