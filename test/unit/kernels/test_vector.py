"""Vector kernels against PyTorch: every op, broadcasting, fused groups, odd and symbolic shapes."""

from dataclasses import replace
from functools import reduce

import pytest
import torch
import torch.nn.functional as F
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import Sym, tensor_type
from opennpu.runtime.chip import Chip
from tile_cases import Compiled, random

# The vector unit computes in f32 and rounds once, PyTorch's bf16 kernels do the same: one
# unit in the last place apart at most, where f32 results differ by rounding. Row-wise ops
# sum in another order than PyTorch: relative error below n·2^-24.
BF16 = {"rtol": 2**-7, "atol": 2**-9}
F32 = {"rtol": 1e-5, "atol": 1e-6}


def close(actual, expected):
    assert actual.dtype == expected.dtype
    limits = BF16 if actual.dtype == torch.bfloat16 else F32 if actual.dtype == torch.float32 else {}
    torch.testing.assert_close(actual, expected, **(limits or {"rtol": 0, "atol": 0}))


UNARY = {
    "copy": torch.clone,
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "square": torch.square,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "sin": torch.sin,
    "cos": torch.cos,
    "floor": torch.floor,
}


@pytest.mark.parametrize("element", ["f32", "bf16"])
@pytest.mark.parametrize("op", UNARY)
def test_unary(kernel_of, op, element):
    kernel = kernel_of(lambda x: npu.unary(op, x), {"x": (["T", 7], element)}, {"T": (0, 100)})
    for tokens in (0, 1, 9):
        x = random((tokens, 7), element)
        (y,) = kernel({"T": tokens}, x=x)
        close(y, UNARY[op](x))


BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


@pytest.mark.parametrize("element", ["f32", "bf16", "i64", "i32", "i8"])
@pytest.mark.parametrize("op", BINARY)
def test_binary(kernel_of, op, element):
    specs = {"a": (["T", 3, 5], element), "b": ([3, 1], element)}
    kernel = kernel_of(lambda a, b: npu.binary(op, a, b), specs, {"T": (0, None)})
    for tokens in (0, 1, 6):
        a, b = random((tokens, 3, 5), element), random((3, 1), element, 1)
        (y,) = kernel({"T": tokens}, a=a, b=b)
        close(y, BINARY[op](a, b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((), ()),
        ((5,), ()),
        ((1,), (5,)),
        ((4, 1), (1, 6)),
        ((2, 1, 3, 1), (1, 4, 1, 5)),
        ((2, 3, 2, 3, 2), (3, 1, 3, 1)),
        ((0, 3), (3,)),
        ((3, 1, 1), (1,)),
    ],
)
def test_broadcasting(kernel_of, a, b):
    kernel = kernel_of(lambda a, b: npu.binary("sub", a, b), {"a": (a, "f32"), "b": (b, "f32")})
    x, y = random(a, "f32"), random(b, "f32", 1)
    close(kernel(a=x, b=y)[0], x - y)


@pytest.mark.parametrize("source", ["f32", "bf16", "i64", "i32", "i8", "i1"])
@pytest.mark.parametrize("target", ["f32", "bf16", "i64", "i32", "i8", "i1"])
def test_cast(kernel_of, source, target):
    if source == target:
        return
    kernel = kernel_of(lambda x: npu.cast(x, target), {"x": (["T"], source)}, {"T": (0, None)})
    x = random((33,), source)
    close(kernel({"T": 33}, x=x)[0], x.to(random((1,), target).dtype))


def test_select_and_integer_arithmetic(kernel_of):
    def build(p, x):
        zero = npu.constant(0, [1], "i64")
        return npu.select(npu.binary("lt", p, zero), x, npu.binary("mul", p, x))

    kernel = kernel_of(build, {"p": (["T", 1], "i64"), "x": (["T", 4], "i64")}, {"T": (0, None)})
    p, x = random((11, 1), "i64"), random((11, 4), "i64", 1)
    close(kernel({"T": 11}, p=p, x=x)[0], torch.where(p < 0, x, p * x))


@pytest.mark.parametrize("element", ["f32", "bf16", "i64", "i1"])
def test_constant(kernel_of, element):
    value = 1 if element == "i1" else 3 if element == "i64" else 1.5
    kernel = kernel_of(
        lambda x: npu.constant(value, ["T", 5], element), {"x": (["T"], "f32")}, {"T": (0, 64)}
    )
    dtype = random((1,), element).dtype
    close(kernel({"T": 3}, x=torch.zeros(3))[0], torch.full((3, 5), value, dtype=dtype))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_iota(kernel_of, dim):
    def build(x):
        return npu.iota(["T", 40, 3], dim, "i64", start=5, step=-2)

    kernel = kernel_of(build, {"x": (["T"], "f32")}, {"T": (0, None)})
    for tokens in (1, 70):
        shape = [1, 1, 1]
        shape[dim] = -1
        expected = (5 - 2 * torch.arange((tokens, 40, 3)[dim])).reshape(shape).expand(tokens, 40, 3)
        close(kernel({"T": tokens}, x=torch.zeros(tokens))[0], expected)


REDUCE = {
    "sum": lambda x, d, k: x.sum(d, keepdim=k, dtype=x.dtype),
    "max": lambda x, d, k: x.amax(d, keepdim=k),
    "min": lambda x, d, k: x.amin(d, keepdim=k),
    "mean": lambda x, d, k: x.mean(d, keepdim=k),
    "argmax": lambda x, d, k: x.argmax(d, keepdim=k),
}


@pytest.mark.parametrize("element", ["f32", "bf16", "i64"])
@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("op", REDUCE)
def test_reduce(kernel_of, op, dim, keepdim, element):
    if op == "mean" and element == "i64":
        return  # not an op
    specs = {"x": ([3, "T", 5], element)}
    kernel = kernel_of(lambda x: npu.reduce(op, x, dim, keepdim), specs, {"T": (1, 64)})
    for tokens in (1, 6):
        x = random((3, tokens, 5), element)
        close(kernel({"T": tokens}, x=x)[0], REDUCE[op](x, dim, keepdim))


def test_reduce_of_a_vector_to_a_scalar(kernel_of):
    kernel = kernel_of(lambda x: npu.reduce("sum", x, 0), {"x": ([130], "f32")})
    x = random((130,), "f32")
    close(kernel(x=x)[0], x.sum())


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_softmax_with_symbolic_rows_and_columns(kernel_of, element):
    kernel = kernel_of(npu.softmax, {"x": (["B", 2, "T"], element)}, {"B": (0, 64), "T": (1, 96)})
    for batch, tokens in ((0, 5), (1, 1), (3, 96)):
        x = random((batch, 2, tokens), element)
        close(kernel({"B": batch, "T": tokens}, x=x)[0], F.softmax(x.float(), -1).to(x.dtype))


@pytest.mark.parametrize("element", ["f32", "bf16"])
@pytest.mark.parametrize("tokens", [0, 1, 13])
def test_norms(kernel_of, tokens, element):
    specs = {"x": (["T", 48], element), "w": ([48], element), "b": ([48], element)}
    x, w, b = (random(s, element, i) for i, s in enumerate([(tokens, 48), (48,), (48,)]))

    def build(x, w, b):
        return npu.rms_norm(x, w, 1e-5), npu.layer_norm(x, w, b, 1e-5)

    rms, layer = kernel_of(build, specs, {"T": (0, 4096)})({"T": tokens}, x=x, w=w, b=b)
    close(rms, F.rms_norm(x.float(), (48,), w.float(), 1e-5).to(x.dtype))
    close(layer, F.layer_norm(x.float(), (48,), w.float(), b.float(), 1e-5).to(x.dtype))


def test_add_rms_norm(kernel_of):
    specs = {"x": (["T", 32], "bf16"), "r": (["T", 32], "bf16"), "w": ([32], "bf16")}
    kernel = kernel_of(lambda x, r, w: npu.add_rms_norm(x, r, w, 1e-6), specs, {"T": (0, 4096)})
    x, r, w = random((7, 32), "bf16"), random((7, 32), "bf16", 1), random((32,), "bf16", 2)
    y, total = kernel({"T": 7}, x=x, r=r, w=w)
    close(total, x + r)
    close(y, F.rms_norm(x.float() + r.float(), (32,), w.float(), 1e-6).bfloat16())


@pytest.mark.parametrize("tokens", [1, 5])
def test_gated_activations(kernel_of, tokens):
    def build(x):
        return npu.silu_and_mul(x), npu.gelu_and_mul(x), npu.gelu_and_mul(x, "tanh")

    x = random((tokens, 24), "bf16")
    gate, up = x.float().chunk(2, -1)
    results = kernel_of(build, {"x": (["T", 24], "bf16")}, {"T": (0, None)})({"T": tokens}, x=x)
    for y, act in zip(results, (F.silu(gate), F.gelu(gate), F.gelu(gate, approximate="tanh")), strict=True):
        close(y, (act * up).bfloat16())


def fused(build, *like):
    """A fused op whose results have the types of these values."""
    return npu.fused([v.type for v in like], build)


def test_fused_group_with_repeated_and_reduced_values(kernel_of):
    """A rotation: [T, H, D] with [T, 1, D], a mean over rows, two results of different widths."""
    specs = {"x": (["T", 3, 8], "bf16"), "c": (["T", 1, 8], "f32"), "s": ([8], "f32")}

    def build(x, c, s):
        kept = tensor_type([npu.dims(x)[0], 3, 1], npu.element_type("f32"))
        wide = tensor_type(npu.dims(x), npu.element_type("f32"))

        def body():
            y = npu.binary("mul", npu.cast(x, "f32"), c)
            y = npu.binary("add", y, npu.unary("exp", s))
            mean = npu.reduce("mean", y, 2, True)
            return npu.cast(npu.binary("sub", y, mean), "bf16"), mean, npu.binary("mul", y, mean)

        return npu.fused([x.type, kept, wide], body)

    kernel = kernel_of(build, specs, {"T": (0, 4096)})
    for tokens in (0, 1, 9):
        x, c, s = (
            random((tokens, 3, 8), "bf16"),
            random((tokens, 1, 8), "f32", 1),
            random((8,), "f32", 2),
        )
        y = x.float() * c + s.exp()
        mean = y.mean(-1, keepdim=True)
        first, second, third = kernel({"T": tokens}, x=x, c=c, s=s)
        close(first, (y - mean).bfloat16())
        close(second, mean)
        close(third, y * mean)


def test_fused_reduction_may_drop_its_dimension_at_the_end(kernel_of):
    def build(x):
        result = tensor_type(npu.dims(x)[:1], npu.element_type("i64"))
        return npu.fused([result], lambda: [npu.reduce("argmax", npu.unary("exp", x), 1)])

    kernel = kernel_of(build, {"x": (["T", 50], "f32")}, {"T": (0, None)})
    x = random((6, 50), "f32")
    close(kernel({"T": 6}, x=x)[0], x.argmax(-1))


def test_reductions_of_repeated_values(kernel_of):
    """Along a dimension that was repeated, or has extent 1, beside others that are longer."""

    def build(x, y):
        wide = npu.broadcast_to(x, [npu.dims(x)[0], 8])
        sums = npu.binary("add", npu.reduce("sum", wide, 1, True), npu.reduce("sum", x, 1, True))
        return npu.softmax(wide), npu.binary("mul", sums, y), npu.reduce("argmax", x, 1)

    specs = {"x": (["T", 1], "f32"), "y": (["T", 8], "f32")}
    x, y = random((5, 1), "f32"), random((5, 8), "f32", 1)
    softmax, product, first = kernel_of(build, specs, {"T": (0, 64)})({"T": 5}, x=x, y=y)
    close(softmax, torch.full((5, 8), 1 / 8))
    close(product, 9 * x * y)
    close(first, torch.zeros(5, dtype=torch.int64))


def test_columns_are_tiled_when_no_row_is_needed_whole(kernel_of):
    specs = {"a": ([3, 300_000], "bf16"), "b": ([300_000], "bf16")}
    a, b = random((3, 300_000), "bf16"), random((300_000,), "bf16", 1)
    close(kernel_of(lambda a, b: npu.binary("add", a, b), specs)(a=a, b=b)[0], a + b)


def test_tiles_that_do_not_fit_are_refused_with_a_remedy():
    chip = replace(Chip.load("npu1-lite"), spm_kib=1)
    specs = {f"x{i}": ([2], "f32") for i in range(20)}

    def build(**xs):
        return reduce(lambda a, b: npu.binary("add", a, b), [npu.unary("exp", x) for x in xs.values()])

    with pytest.raises(CompileError, match=r"npu.fused.*scratchpad(.|\n)*choose a chip"):
        Compiled(build, specs, chip=chip, fuse=True)


@pytest.mark.parametrize("element", ["f32", "i64"])
def test_extent(kernel_of, element):
    """An extent of the input as a number, with others and alone."""

    def build(x):
        count = npu.extent(Sym.of("2*T + 1"), element)
        return npu.binary("add", x, count), count

    kernel = kernel_of(build, {"x": (["T", 3], element)}, {"T": (1, None)})
    x = random((5, 3), element)
    total, count = kernel({"T": 5}, x=x)
    assert torch.equal(total, x + 11) and count.item() == 11


@pytest.mark.parametrize("op", ["sum", "max", "min", "argmax"])
def test_reduction_of_no_elements(kernel_of, op):
    y = kernel_of(lambda x: npu.reduce(op, x, 1), {"x": ([3, 0], "f32")})(x=torch.ones(3, 0))[0]
    expected = {"sum": 0.0, "max": float("-inf"), "min": float("inf"), "argmax": 0}[op]
    assert y.tolist() == [expected] * 3
