"""The interpreter's ops against PyTorch's on random tensors."""

import math

import npu_graphs as graphs
import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.interpreters.table import ELEMENTS
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError
from torch_mlir import ir

NAMES = {dtype: name for name, dtype in ELEMENTS.items()}


@pytest.fixture(autouse=True)
def context():
    with ir.Context() as context, ir.Location.unknown():
        npu.load()
        torch.manual_seed(0)
        yield context


def run(build, *tensors: torch.Tensor, kv=None):
    """What the ops that `build` makes of values like the tensors compute; one result, or a tuple."""
    f = graphs.Function()
    names = [f"x{i}" for i in range(len(tensors))]
    values = [f.input(n, t.shape, NAMES[t.dtype]) for n, t in zip(names, tensors, strict=True)]
    with ir.InsertionPoint(f.end):
        results = build(*values)
    results = results if isinstance(results, tuple) else () if results is None else (results,)
    inputs = dict(zip(names, tensors, strict=True))
    got = interpreter.run(f.finish(*results), inputs, {}, kv=kv)
    return got[0] if len(got) == 1 else tuple(got)


def rand(*shape: int, dtype=torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the order of f32 sums and elementary functions, and what that does to a bf16 rounding."""
    assert got.dtype == expected.dtype
    rounding = {torch.float32: 2e-5, torch.bfloat16: 2.0**-7}.get(got.dtype, 0)
    torch.testing.assert_close(got, expected, rtol=rounding, atol=rounding * 0.1)


# ---- element by element

SAME_NAME = (
    *("neg", "abs", "sign", "square", "relu", "floor", "ceil", "round", "trunc"),
    *("exp", "tanh", "erf", "sigmoid", "sin", "cos"),
)
TORCH_UNARY = {
    **{name: getattr(torch, name) for name in SAME_NAME},
    "copy": torch.clone,
    "recip": torch.reciprocal,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("op", sorted(TORCH_UNARY))
def test_unary(op, dtype):
    x = rand(3, 5, dtype=dtype)
    close(run(lambda v: npu.unary(op, v), x), TORCH_UNARY[op](x.float()).to(dtype))


@pytest.mark.parametrize("op", ["log", "sqrt", "rsqrt"])
def test_unary_of_positive(op):
    x = rand(3, 5).abs() + 0.5
    close(run(lambda v: npu.unary(op, v), x), getattr(torch, op)(x.float()).bfloat16())


def test_not():
    x = torch.tensor([True, False])
    assert torch.equal(run(lambda v: npu.unary("not", v), x), ~x)


TORCH_BINARY = {
    **{name: getattr(torch, name) for name in ("add", "sub", "mul", "div")},
    **{name: getattr(torch, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "max": torch.maximum,
    "min": torch.minimum,
    "mod": torch.fmod,
}


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (4,)), ((), (2, 3))])
@pytest.mark.parametrize("op", sorted(TORCH_BINARY))
def test_binary(op, shapes):
    a, b = (rand(*shape) for shape in shapes)
    expected = TORCH_BINARY[op](a.float(), b.float())
    dtype = expected.dtype if expected.dtype == torch.bool else torch.bfloat16
    close(run(lambda x, y: npu.binary(op, x, y), a, b), expected.to(dtype))


def test_pow():
    a, b = rand(4, dtype=torch.float32).abs(), rand(4, dtype=torch.float32)
    close(run(lambda x, y: npu.binary("pow", x, y), a, b), a**b)


@pytest.mark.parametrize("op", ["div", "mod"])
def test_integer_division_truncates_and_by_zero_is_zero(op):
    a, b = [7, -7, 7, -7], [2, 2, -2, -2]
    exact = (lambda x, y: math.trunc(x / y)) if op == "div" else math.fmod
    expected = [exact(x, y) for x, y in zip(a, b, strict=True)]
    got = run(lambda x, y: npu.binary(op, x, y), torch.tensor([*a, 5]), torch.tensor([*b, 0]))
    assert got.tolist() == [*expected, 0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
@pytest.mark.parametrize("op", ["and", "or", "xor"])
def test_logic(op, dtype):
    a, b = (torch.randint(0, 8 if dtype == torch.int64 else 2, (9,)).to(dtype) for _ in range(2))
    expected = {"and": a & b, "or": a | b, "xor": a ^ b}[op]
    assert torch.equal(run(lambda x, y: npu.binary(op, x, y), a, b), expected)


def test_select():
    cond, a, b = rand(3, 1) > 0, rand(3, 4), rand(4)
    assert torch.equal(run(npu.select, cond, a, b), torch.where(cond, a, b))


@pytest.mark.parametrize("element", ["f32", "i64", "i32", "i8", "i1"])
def test_cast(element):
    x = rand(20) * 10
    assert torch.equal(run(lambda v: npu.cast(v, element), x), x.to(ELEMENTS[element]))


def test_constant_and_iota():
    assert torch.equal(run(lambda: npu.constant(1.5, [2, 3], "bf16")), torch.full((2, 3), 1.5).bfloat16())
    expected = (2 + 3 * torch.arange(4))[:, None].expand(4, 2)
    assert torch.equal(run(lambda: npu.iota([4, 2], 0, "i64", start=2, step=3)), expected)


# ---- along a dimension


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", [0, 2])
@pytest.mark.parametrize("op", ["sum", "mean", "max", "min", "argmax"])
def test_reduce(op, dim, keepdim):
    x = rand(3, 4, 5, dtype=torch.float32)
    expected = getattr(torch, {"max": "amax", "min": "amin"}.get(op, op))(x, dim, keepdim=keepdim)
    close(run(lambda v: npu.reduce(op, v, dim, keepdim), x), expected)


def test_softmax():
    x = rand(3, 5)
    close(run(npu.softmax, x), x.float().softmax(-1).bfloat16())


def test_norms():
    x, residual, w, b = rand(3, 8), rand(3, 8), rand(8), rand(8)
    close(
        run(lambda x, w: npu.rms_norm(x, w, 1e-5), x, w),
        F.rms_norm(x.float(), (8,), w.float(), 1e-5).bfloat16(),
    )
    expected = F.layer_norm(x.float(), (8,), w.float(), b.float(), 1e-5).bfloat16()
    close(run(lambda x, w, b: npu.layer_norm(x, w, b, 1e-5), x, w, b), expected)
    y, total = run(lambda x, r, w: npu.add_rms_norm(x, r, w, 1e-5), x, residual, w)
    assert torch.equal(total, x + residual)
    close(y, F.rms_norm(x.float() + residual.float(), (8,), w.float(), 1e-5).bfloat16())


# ---- matrix products and gating


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5))])
@pytest.mark.parametrize("transpose_w", [True, False])
def test_matmul(shapes, transpose_w):
    x, w = (rand(*shape) for shape in shapes)
    expected = (x.float() @ w.float()).bfloat16()
    close(
        run(lambda x, w: npu.matmul(x, w, transpose_w), x, w.mT.contiguous() if transpose_w else w), expected
    )


def test_epilogue():
    x, w, bias, residual = rand(3, 8), rand(12, 8), rand(12), rand(3, 6)
    steps = ["bias", "gate_gelu_tanh", "residual"]
    got = run(lambda x, w, b, r: npu.matmul(x, w, True, steps, [b, r]), x, w, bias, residual)
    gate, up = F.linear(x.float(), w.float(), bias.float()).chunk(2, -1)
    close(got, (F.gelu(gate, approximate="tanh") * up + residual.float()).bfloat16())


def test_gated_activations():
    x = rand(3, 8)
    gate, up = x.float().chunk(2, -1)
    close(run(npu.silu_and_mul, x), (F.silu(gate) * up).bfloat16())
    for approximate in ("none", "tanh"):
        expected = (F.gelu(gate, approximate=approximate) * up).bfloat16()
        close(run(lambda v, a=approximate: npu.gelu_and_mul(v, a), x), expected)


# ---- movement


def test_movement():
    x = rand(4, 6)
    assert torch.equal(run(lambda v: npu.reshape(v, [2, 12]), x), x.view(2, 12))
    assert torch.equal(run(lambda v: npu.transpose(v, [1, 0]), x), x.T)
    assert torch.equal(run(lambda v: npu.broadcast_to(v, [3, 4, 6]), x), x.expand(3, 4, 6))
    assert torch.equal(run(lambda v: npu.slice_(v, 1, 1, 2, 3), x), x[:, 1::3])
    assert torch.equal(run(lambda a, b: npu.concat([a, b], 0), x, x[:1]), torch.cat([x, x[:1]]))


def test_gather_and_take():
    table, index = rand(7, 3), torch.randint(0, 7, (2, 4))
    assert torch.equal(run(npu.gather, table, index), F.embedding(index, table))
    columns = torch.randint(0, 3, (7, 2))
    assert torch.equal(run(npu.take, table, columns), torch.gather(table, 1, columns))


# ---- rotation and attention


@pytest.mark.parametrize("neox", [True, False])
def test_rope_rotates_each_pair(neox):
    """Written with rotation matrices, one pair at a time; 4 of 6 elements of a head rotate."""
    x, positions = rand(3, 12, dtype=torch.float32), torch.tensor([4, 0, 9])
    angles = torch.outer(torch.arange(10.0), torch.tensor([1.0, 0.1]))
    cache = torch.cat([angles.cos(), angles.sin()], -1)
    got = run(lambda x, p, c: npu.rope(x, p, c, 6, neox), x, positions, cache)
    expected = x.clone().view(3, 2, 6)
    for pair in range(2):
        at = [pair, pair + 2] if neox else [2 * pair, 2 * pair + 1]
        for row, position in enumerate(positions.tolist()):
            a = angles[position, pair]
            matrix = torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]])
            expected[row][:, at] = x.view(3, 2, 6)[row][:, at] @ matrix.T
    close(got, expected.view(3, 12))


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"logit_cap": 2.0}])
def test_paged_attention_over_what_was_written(options):
    """Two sequences in shuffled pages against PyTorch's attention, with grouped heads."""
    inputs, kv = graphs.llama_inputs([5, 7])
    heads, kv_heads, dim = 4, 2, 8
    q, k, v = rand(12, heads * dim), rand(12, kv_heads * dim), rand(12, kv_heads * dim)
    sizes = {"layer": 1, "kv_heads": kv_heads, "head_dim": dim, "v_head_dim": dim}

    def build(q, k, v, slots, table, lens, start):
        npu.kv_write(k, v, slots, **sizes)
        return npu.paged_attention(q, table, lens, start, heads=heads, scale=0.3, **sizes, **options)

    indices = [inputs[name] for name in ("slots", "block_table", "seq_lens", "q_start")]
    got = run(build, q, k, v, *indices, kv=kv)
    for rows in (slice(0, 5), slice(5, 12)):
        count = rows.stop - rows.start
        parts = [x[rows].float().view(count, -1, dim).transpose(0, 1) for x in (q, k, v)]
        expected = _attention(*parts, **options).transpose(0, 1).reshape(count, -1)
        close(got[rows], expected.bfloat16())


def _attention(q, k, v, window: int = 0, logit_cap: float = 0.0):
    mask = torch.ones(q.shape[1], q.shape[1]).tril().bool()
    if window:
        mask &= ~torch.ones_like(mask).tril(-window)
    if not logit_cap:
        return F.scaled_dot_product_attention(q, k, v, mask, scale=0.3, enable_gqa=True)
    scores = logit_cap * torch.tanh(q @ k.repeat_interleave(2, 0).mT * 0.3 / logit_cap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 0)


def test_rope_kv_write_is_its_parts():
    inputs, kv = graphs.llama_inputs([6])
    qkv, cache = rand(6, 24), rand(10, 4, dtype=torch.float32)
    sizes = {"layer": 0, "kv_heads": 1, "head_dim": 4, "v_head_dim": 4}

    def parts(qkv, positions, cache, slots):
        q, k = (
            npu.rope(npu.slice_(qkv, 1, at, n), positions, cache, 4, True) for at, n in ((0, 16), (16, 4))
        )
        npu.kv_write(k, npu.slice_(qkv, 1, 20, 4), slots, **sizes)
        return q

    def whole(*operands):
        return npu.rope_kv_write(*operands, heads=4, neox=True, **sizes)

    operands = (qkv, inputs["positions"], cache, inputs["slots"])
    expected = run(parts, *operands, kv=kv)
    pages = [x.clone() for x in kv.layers.pop(0)]
    assert torch.equal(run(whole, *operands, kv=kv), expected)
    assert all(torch.equal(a, b) for a, b in zip(kv.layers[0], pages, strict=True))


# ---- regions, arguments


def test_fused_and_repeat():
    """x → tanh(x · w_layer), three times, the tanh in a fused region."""
    f = graphs.Function()
    x = f.input("x", ["T", 4], "f32")
    with ir.InsertionPoint(f.end):

        def layer(_, carried, params):
            y = npu.matmul(carried[0], params[0])
            return npu.fused([y.type], lambda: [npu.unary("tanh", y)])

        results = npu.repeat([x], 3, [["a", "b", "c"]], [npu.like(x, [4, 4])], layer)
    module = f.finish(*results)
    params = {name: rand(4, 4, dtype=torch.float32) for name in "abc"}
    expected = start = rand(5, 4, dtype=torch.float32)
    for w in params.values():
        expected = torch.tanh(expected @ w)
    close(interpreter.run(module, {"x": start}, params)[0], expected)


def test_missing_and_misshapen_arguments_are_named():
    f = graphs.Function()
    module = f.finish(f.input("x", ["T", 4]))
    with pytest.raises(CompileError, match="input 'x' is missing"):
        interpreter.run(module, {}, {})
    with pytest.raises(CompileError, match=r"'x' has shape \[3, 5\]"):
        interpreter.run(module, {"x": rand(3, 5)}, {})


def test_extents_may_be_given():
    f = graphs.Function()
    with ir.InsertionPoint(f.end):
        y = npu.iota(["2*T"], 0, "i64")
    assert interpreter.run(f.finish(y), {}, {}, symbols={"T": 3})[0].tolist() == list(range(6))
