"""Matrix products and what is made of them."""

import math

from opennpu.compiler.conversions.table import (
    Unsupported,
    as_tensor,
    converts,
    promote,
    promoted,
    rank,
    static,
)
from opennpu.dialects import npu
from opennpu.dialects.symbols import dim, exact_div, num_elements


@converts("aten.linear")
def linear(x, w, bias):
    element = promote(x, w)
    x, w = npu.cast(x, element), npu.cast(w, element)
    if rank(x) == 1:
        return npu.reshape(linear(npu.reshape(x, [1, *npu.dims(x)]), w, bias), [npu.dims(w)[0]])
    y = npu.matmul(x, w, transpose_w=True)
    return y if bias is None else npu.binary("add", y, npu.cast(bias, element))


@converts("aten.matmul", "aten.mm", "aten.bmm")
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
    if rank(b) > 2:
        batch = npu.broadcast(npu.dims(a)[:-2], npu.dims(b)[:-2])
        a = npu.broadcast_to(a, [*batch, *npu.dims(a)[-2:]])
        b = npu.broadcast_to(b, [*batch, *npu.dims(b)[-2:]])
    return npu.matmul(a, b, transpose_w=transpose_b, element=element)


@converts("aten.addmm", "aten.baddbmm")
def addmm(bias, a, b, beta, alpha):
    y = matmul(a, b)
    y = y if alpha == 1 else npu.binary("mul", y, as_tensor(alpha, npu.dtype(y)))
    if beta == 0:
        return y
    bias = npu.cast(bias, npu.dtype(y))
    bias = bias if beta == 1 else npu.binary("mul", bias, as_tensor(beta, npu.dtype(y)))
    return npu.binary("add", y, bias)


# ---- convolution of patches


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


# ---- attention over dense keys


@converts("aten.scaled_dot_product_attention")
def attention(q, k, v, mask, _dropout, is_causal, scale, enable_gqa):
    """q[…,L,E], k[…,S,E], v[…,S,Ev]: softmax(q·kᵀ·scale + mask)·v; scores in f32."""
    if enable_gqa:
        k, v = (repeat_heads(x, npu.dims(q)[-3]) for x in (k, v))
    if scale is None:
        scale = 1 / math.sqrt(static(npu.dims(q)[-1], "the head's size"))
    scores = batched(q, k, transpose_b=True, element="f32")
    scores = npu.binary("mul", scores, as_tensor(float(scale), "f32"))
    if is_causal:
        mask = causal(*npu.dims(scores)[-2:])
    if mask is not None and npu.dtype(mask) == "i1":
        scores = npu.select(mask, scores, as_tensor(-math.inf, "f32"))
    elif mask is not None:
        scores = npu.binary("add", scores, npu.cast(mask, "f32"))
    return batched(npu.cast(npu.softmax(scores), npu.dtype(v)), v)


def causal(rows, columns):
    """True where a row (query) may see a column (key)."""
    return npu.binary("ge", npu.iota([rows, 1], 0, "i32"), npu.iota([1, columns], 1, "i32"))


def repeat_heads(x, heads):
    """[…,Hkv,S,E] → […,H,S,E]: each head for H / Hkv neighbours."""
    *outer, own, rows, width = npu.dims(x)
    group = exact_div(heads, own)
    if group == 1:
        return x
    spread = npu.reshape(x, [*outer, own, 1, rows, width])
    return npu.reshape(
        npu.broadcast_to(spread, [*outer, own, group, rows, width]), [*outer, heads, rows, width]
    )
