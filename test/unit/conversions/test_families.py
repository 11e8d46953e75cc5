"""Every family of conversions against PyTorch, on random tensors with a dynamic extent."""

import pytest
import torch
import torch.nn.functional as F
from conversion_harness import PIPELINES, Program, check, converted
from opennpu.compiler.interpreters import npu as interpreter

aten = torch.ops.aten
batch_norm = aten._native_batch_norm_legit_no_training
ROWS = torch.export.Dim("R", min=3, max=64)


def tensors(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def rows(count):
    """The dynamic_shapes of a Program of `count` arguments whose first extent is dynamic."""
    return ({0: ROWS},) * count


def check_rows(functions, shapes, dtype=torch.float32, tolerance=2e-6):
    """Functions of tensors [5, …], exported with that extent dynamic and run with 5 and 3."""
    arguments = tensors(*((5, *s) for s in shapes), dtype=dtype)
    shorter = tensors(*((3, *s) for s in shapes), dtype=dtype, seed=1)
    check(Program(functions), arguments, (rows(len(shapes)),), [shorter], tolerance)


UNARY = [
    torch.neg,
    torch.abs,
    torch.sign,
    torch.square,
    F.relu,
    torch.exp,
    lambda x: torch.log(x.abs() + 1),
    lambda x: torch.sqrt(x.abs()),
    lambda x: torch.rsqrt(x.abs() + 0.1),
    lambda x: torch.reciprocal(x.abs() + 0.5),
    torch.tanh,
    torch.erf,
    torch.sigmoid,
    F.silu,
    F.gelu,
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.leaky_relu(x, 0.1),
    torch.sin,
    torch.cos,
    torch.floor,
    torch.ceil,
    torch.round,
    torch.trunc,
    F.hardtanh,
    torch.sgn,
    torch.log1p,
    lambda x: torch.log1p(x * 1e-5),
    torch.expm1,
    lambda x: torch.expm1(x * 1e-5),
    torch.exp2,
    lambda x: torch.log2(x.abs() + 1),
    lambda x: torch.log10(x.abs() + 1),
    lambda x: torch.tan(x / 2),
    torch.sinh,
    torch.cosh,
    torch.isfinite,
    lambda x: torch.isinf(x / 0),
    F.elu,
    F.softplus,
    F.hardswish,
    F.logsigmoid,
]
ARITHMETIC = [
    lambda a, b: a + b,
    lambda a, b: torch.add(a, b, alpha=0.5),
    lambda a, b: a - b,
    lambda a, b: torch.sub(a, b, alpha=3),
    lambda a, b: 2 - a,
    lambda a, b: torch.rsub(a, b, alpha=2),
    lambda a, b: a * b * 3,
    lambda a, b: a / (b.abs() + 1) / 3,
    lambda a, b: torch.div(a, b.abs() + 0.5, rounding_mode="floor"),
    lambda a, b: torch.div(a, b.abs() + 0.5, rounding_mode="trunc"),
    lambda a, b: a**2 + b**3,
    lambda a, b: a.abs() ** 0.5 + (b.abs() + 1) ** -0.5,
    lambda a, b: (a.abs() + 1) ** -1 + (b.abs() + 1) ** 1.7 + a**1,
    lambda a, b: (a.abs() + 1) ** b,
    lambda a, b: torch.maximum(a, b),
    lambda a, b: torch.fmax(a, (b - 1).log()),
    lambda a, b: torch.fmin((a - 1).log(), b),
    lambda a, b: torch.hypot(a, b),
    lambda a, b: torch.hypot(a * 0, b),
    lambda a, b: torch.minimum(a, b),
    lambda a, b: a.clamp(-0.5, 0.5) + b.clamp(min=0) + b.clamp_max(1),
    lambda a, b: a == b,
    lambda a, b: (a != b) & (a < 0.5),
    lambda a, b: (a > b) | (a >= 0),
    lambda a, b: ~(a <= b),
    lambda a, b: (a > 0) ^ (b > 0),
    lambda a, b: torch.logical_and(a, b > 0),
    lambda a, b: torch.logical_or(a > 0, b > 0),
    lambda a, b: torch.logical_not(a),
    lambda a, b: torch.where(a > b, a, b),
    lambda a, b: torch.where(a > b, 1.0, b),
    lambda a, b: torch.where(a > b, a, 0),
    lambda a, b: a.masked_fill(b > 0, float("-inf")),
    lambda a, b: torch.isnan(a) | torch.isinf(b),
]
PROMOTION = [
    lambda x, n, m: x + n,  # bf16 with int64: bf16
    lambda x, n, m: x + n.float(),
    lambda x, n, m: n + 1.5,
    lambda x, n, m: n / 2,
    lambda x, n, m: n // 2,
    lambda x, n, m: (n - 10) // 3,
    lambda x, n, m: (n - 10) % 3,
    lambda x, n, m: n * m,
    lambda x, n, m: m + 1,
    lambda x, n, m: m + 0.5,
    lambda x, n, m: x * torch.tensor(2.0),  # a 0-d f32 does not widen bf16
    lambda x, n, m: n.to(torch.int32) + n,
    lambda x, n, m: n & 3,
    lambda x, n, m: ~n,
    lambda x, n, m: torch.sin(n),
    lambda x, n, m: x.type_as(n.float()),
    lambda x, n, m: x.float().to(x.dtype),
    lambda x, n, m: n.bool(),
    lambda x, n, m: torch.where(m, x, n),
    lambda x, n, m: torch.cat([x, n.float()], 1),
    lambda x, n, m: n.sum(1) + m.sum(1),
    lambda x, n, m: m + m,
    lambda x, n, m: m * m,
    lambda x, n, m: torch.maximum(m, n > 5),
    lambda x, n, m: torch.floor(n + 2**40),
    lambda x, n, m: torch.isnan(n) | torch.isinf(n) | torch.isfinite(n),
    lambda x, n, m: (n - 10) << 3,
    lambda x, n, m: (n - 10) >> 2,
    lambda x, n, m: ((n - 10).int() << 28) >> 31,
    lambda x, n, m: (n - 10) >> 63,
    lambda x, n, m: (n << (n & 3)) >> (n & 1),
    lambda x, n, m: torch.fmod(n - 10, 3),
    lambda x, n, m: n * x.shape[0],
]
WHOLE_DIVISION = [
    lambda a, b: a // b,
    lambda a, b: a % b,
    lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    lambda a, b: a // 3,
    lambda a, b: a % -3,
]
REDUCTIONS = [
    lambda x: x.sum(-1),
    lambda x: x.sum((1, 2), keepdim=True),
    lambda x: x.sum(),
    lambda x: x.mean(1),
    lambda x: x.mean(),
    lambda x: x.mean((-1, -2)),
    lambda x: x.amax(1, keepdim=True),
    lambda x: x.amin((1, 2)),
    lambda x: x.max(2).values,
    lambda x: x.max(1, keepdim=True).indices,
    lambda x: x.max(),
    lambda x: x.min(),
    lambda x: x.argmax(-1),
    lambda x: x.argmax(1, keepdim=True),
    lambda x: x.argmax(),
    lambda x: (x > 0).any(1),
    lambda x: (x > -1).all(-1),
    lambda x: (x > 0).any(),
    lambda x: (x > 0).amax(1),
    lambda x: x.min(1).indices,
    lambda x: x.argmin(),
    lambda x: (x * 100).long().argmin(-1, keepdim=True),
    lambda x: x.topk(3).values,
    lambda x: x.topk(2, 1).indices,
    lambda x: x.aminmax(dim=1)[1],
    lambda x: x.cumsum(1),
    lambda x: x.logsumexp(1),
    lambda x: x.logsumexp((0, 2), keepdim=True),
    lambda x: (x / 0).logsumexp(-1),
    lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    lambda x: torch.linalg.vector_norm(x, float("inf")),
    lambda x: torch.linalg.vector_norm(x, 0, dim=(1, 2)),
    lambda x: torch.linalg.vector_norm(x, 3, dim=-1, keepdim=True),
    lambda x: x.var(-1),
    lambda x: x.var((0, 1)),
    lambda x: torch.var_mean(x, 1)[1],
    lambda x: x.std(-1, correction=0, keepdim=True),
    lambda x: x.sum().softmax(0),
    lambda x: x.softmax(-1),
    lambda x: x.softmax(1),
    lambda x: x.log_softmax(-1),
    lambda x: F.softmax(x, -1, dtype=torch.float32),
]
NORMS = [
    lambda x, w, b: F.layer_norm(x, (6,), w[0], b[0]),
    lambda x, w, b: F.layer_norm(x, (6,)),
    lambda x, w, b: F.layer_norm(x, (4, 6), eps=1e-3),
    lambda x, w, b: F.layer_norm(x, (6,), w[0]),
    lambda x, w, b: torch.stack(aten.native_layer_norm(x, (6,), w[0], b[0], 1e-5)[1:]),
    lambda x, w, b: F.group_norm(x, 2, w[0, :4], b[0, :4]),
    lambda x, w, b: F.group_norm(x, 4),
    lambda x, w, b: batch_norm(x, w[1, :4], b[1, :4], b[0, :4], w[0, :4].square(), 0.1, 1e-5)[0],
    lambda x, w, b: aten.native_layer_norm(x, (6,), w[0], b[0], 1e-5)[0],
    lambda x, w, b: F.rms_norm(x, (6,), w[0], 1e-6),
    lambda x, w, b: F.rms_norm(x, (6,)),
]
VIEWS = [
    lambda x: x.view(-1, 24),
    lambda x: x.reshape(x.shape[0] * 4, 6),
    lambda x: x.reshape(-1),
    lambda x: x.flatten(1),
    lambda x: x.unflatten(2, (2, -1)),
    lambda x: x.unsqueeze(-1).squeeze(-1),
    lambda x: x.unsqueeze(0).squeeze(),
    lambda x: x.permute(2, 0, 1),
    lambda x: x.transpose(0, -1),
    lambda x: x[0].t(),
    lambda x: x[0].T,
    lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1),
    lambda x: x[:, :1].expand_as(x),
    lambda x: x[:, 0].broadcast_to(2, x.shape[0], 6),
    lambda x: x.repeat(1, 2, 3),
    lambda x: x.repeat_interleave(2, 1),
    lambda x: x[:, 1:3],
    lambda x: x[:, :, ::2],
    lambda x: x[:, -2:, 1:-1],
    lambda x: x[1:],
    lambda x: x[:-1],
    lambda x: x[:, 2],
    lambda x: x[:, -1],
    lambda x: x.narrow(2, 1, 3),
    lambda x: x.split(4, 2)[1],
    lambda x: x.split([1, 3], 1)[1],
    lambda x: torch.cat(x.chunk(3, -1), 1),
    lambda x: sum(x.unbind(1)),
    lambda x: torch.stack([x, x + 1], 1),
    lambda x: torch.stack([x, x + 1], -1).flatten(-2),
    lambda x: torch.cat([x, x[:, :0], x * 2], 1),
    lambda x: torch.cat([x, x], 0),
    lambda x: x.clone().contiguous().detach(),
    lambda x: F.dropout(x, 0.5, training=False),
    lambda x: F.pad(x, (1, 2), value=3.5),
    lambda x: F.pad(x, (0, 1, -1, 0, 2, -2)),
]
PRODUCTS = [
    lambda a, b: a @ b[0],
    lambda a, b: a @ b,
    lambda a, b: torch.bmm(a, b),
    lambda a, b: torch.mm(a[0], b[0]),
    lambda a, b: a[:, 0] @ b[0],
    lambda a, b: a @ b[0, :, 0],
    lambda a, b: a[0, 0] @ b[0],
    lambda a, b: a[0, 0] @ b[0, :, 0],
    lambda a, b: a @ a.transpose(-1, -2),
    lambda a, b: a.unsqueeze(1) @ b,
    lambda a, b: F.linear(a, b[0].T),
    lambda a, b: F.linear(a, b[0].T, b[0, 0]),
    lambda a, b: F.linear(a[0, 0], b[0].T),
    lambda a, b: torch.addmm(b[0, 0], a[0], b[0], beta=0.5, alpha=2),
    lambda a, b: torch.baddbmm(b[:, :4], a, b),
]
INDEXING = [
    lambda x, n: F.embedding(n, x[0]),
    lambda x, n: x.index_select(1, n[0]),
    lambda x, n: x.index_select(0, n[0]),
    lambda x, n: x[n[0]],
    lambda x, n: x[n],
    lambda x, n: x[:, n[0]],
    lambda x, n: x[..., n[0]],
    lambda x, n: x[:, 0].gather(1, n),
    lambda x, n: x.gather(1, n.unsqueeze(-1).expand(-1, -1, 6)),
    lambda x, n: x[:, 0][n, n],
    lambda x, n: x[:, 0][n[:, :1], n],
    lambda x, n: x[n, n],
    lambda x, n: x[torch.arange(x.shape[0]), n[:, 0]],
    lambda x, n: x.flip(1, 2),
    lambda x, n: x.flip(0),
    lambda x, n: x[n[0] - 3],
    lambda x, n: x[n, -n],
    lambda x, n: x[:, n[0], n[1]],
    lambda x, n: x[n[0], :, n[1]],
]
CREATION = [
    lambda x: x[:, 0] + torch.arange(6),
    lambda x: torch.arange(x.shape[0]),
    lambda x: torch.arange(3, x.shape[0] + 7),
    lambda x: torch.arange(0, 10, 3),
    lambda x: torch.arange(0, 1, 0.25),
    lambda x: torch.full((x.shape[0], 2), 1.5) + torch.zeros(2) + torch.ones(2),
    lambda x: torch.full_like(x, 2) + torch.zeros_like(x) + torch.ones_like(x),
    lambda x: x.new_zeros(3) + x.new_ones(3) + x.new_full((3,), 7),
    lambda x: x * torch.scalar_tensor(2.0),
    lambda x: x.tril(),
    lambda x: x.triu(1),
    lambda x: torch.ones(4, 4, dtype=torch.bool).tril(-1),
]
ATTENTION = [
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v),
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m),
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m > -1),
    lambda q, k, v, m: F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True),
]


def test_unary():
    check_rows(UNARY, [(4, 6)])


def test_unary_bf16():
    check_rows(UNARY, [(4, 6)], torch.bfloat16)


def test_arithmetic():
    check_rows(ARITHMETIC, [(4, 6), (1, 6)])


def test_promotion():
    (x,) = tensors((5, 4), dtype=torch.bfloat16)
    n = torch.arange(20).reshape(5, 4)
    check(Program(PROMOTION), [x, n, n % 3 == 0], (rows(3),), [[x[:3], n[:3], n[:3] > 4]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_division(dtype):
    """Quotients that round across a whole number, signs, zeros and infinities: to the bit.

    Against PyTorch in f32: in bf16 its scalar and its vector code differ (1000 // 3 is 332 or 334).
    """
    inf = float("inf")
    a = torch.tensor([1000, 1, 5, 0, -5, -7, 7, 7, inf, -6, 6, -7, 7, 0, 1e30, -1.0], dtype=dtype)
    b = torch.tensor([3, 0.1, 0, 0, 0, inf, inf, -inf, 2, 3, -3, 3, -3, -3, 7, 0.1], dtype=dtype)
    model = Program(WHOLE_DIVISION)
    for pipeline in PIPELINES:
        module, params = converted(model, [a, b], pipeline=pipeline)
        results = interpreter.run(module, {"arguments_0": a, "arguments_1": b}, params)
        for result, expected in zip(results, model(a.float(), b.float()), strict=True):
            torch.testing.assert_close(result, expected.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_whole_division_of_integers(dtype):
    """With the least and the greatest integers, whose products with the rest overflow."""
    limits = torch.iinfo(dtype)
    a = torch.tensor([7, -7, 7, -7, limits.max, limits.min + 1, limits.min, -1], dtype=dtype)
    b = torch.tensor([3, 3, -3, -3, limits.min, limits.max, limits.min, limits.min], dtype=dtype)
    check(Program(WHOLE_DIVISION), [a, b])


def test_reductions():
    check_rows(REDUCTIONS, [(4, 6)])


def test_statistics_bf16():
    """With a mean that is large beside the deviation: one rounding, at the end."""
    functions = [
        lambda x: x.var(-1),
        lambda x: x.std(-1, correction=0),
        lambda x: x.log_softmax(-1),
        lambda x: torch.linalg.vector_norm(x, dim=-1),
    ]
    (x,) = tensors((4, 512))
    check(Program(functions), [(x + 100.3).to(torch.bfloat16)])


def test_norms():
    check_rows(NORMS, [(4, 6), (6,), (6,)])


def test_views():
    check_rows(VIEWS, [(4, 6)])


def test_products():
    check_rows(PRODUCTS, [(4, 6), (6, 6)])


def test_indexing():
    (x,) = tensors((5, 4, 6))
    n = torch.arange(20).reshape(5, 4) % 3
    check(Program(INDEXING), [x, n], (rows(2),), [[x[:4], n[:4]]])


def test_creation():
    check_rows(CREATION, [(4, 6)])


def test_attention():
    check_rows(ATTENTION, [(4, 7, 16), (4, 7, 16), (4, 7, 16), (1, 7, 7)])


def test_patches():
    """A convolution of patches side by side."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 8, kernel_size=4, stride=4)
    check(model, tensors((4, 3, 8, 12)), ({0: ROWS},), [tensors((5, 3, 8, 12))])


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (4, 2, 0)])
def test_other_convolutions_are_refused(kernel, stride, padding):
    from opennpu.dialects.diagnostics import CompileError

    with pytest.raises(CompileError, match="convolution other than of patches"):
        check(torch.nn.Conv2d(3, 8, kernel, stride, padding), tensors((1, 3, 8, 8)))
