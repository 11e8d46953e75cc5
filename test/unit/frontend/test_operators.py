"""Every `opennpu::` operator but attention: opcheck, values against PyTorch's own, and errors."""

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.frontend import ops
from opennpu.compiler.frontend.ops import doc
from torch.library import opcheck

BF16_ROUNDING = 2**-8  # relative: one rounding to bf16


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def strided(*shape, dtype=torch.float32):
    """Of a buffer twice as wide: not contiguous."""
    return randn(*shape[:-1], 2 * shape[-1], dtype=dtype)[..., ::2]


def integers(*shape, below, dtype=torch.int64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, below, shape, generator=generator).to(dtype)


BF16 = {"dtype": torch.bfloat16}
OFFSETS = torch.tensor([0, 3, 3, 7], dtype=torch.int32)
CALLS = [
    (ops.matmul, (randn(3, 8), randn(4, 8)), {}),
    (ops.matmul, (strided(2, 3, 8, **BF16), strided(4, 8, **BF16), randn(4), randn(2, 3, 2, **BF16)),
     {"activation": "gate_gelu"}),
    (ops.matmul, (randn(0, 8), randn(8, 4)), {"transpose_w": False, "activation": "relu"}),
    (ops.rms_norm, (strided(2, 3, 8), randn(8), 1e-5), {}),
    (ops.rms_norm, (randn(3, 8, **BF16).T.contiguous().T, randn(8), 1e-5), {}),
    (ops.add_rms_norm, (randn(3, 8, **BF16), strided(3, 8, **BF16), randn(8), 1e-5), {}),
    (ops.layer_norm, (randn(3, 8), randn(8), randn(8), 1e-5), {}),
    (ops.layer_norm, (strided(3, 8, **BF16), randn(8), None, 1e-5), {}),
    (ops.silu_and_mul, (strided(2, 3, 8),), {}),
    (ops.gelu_and_mul, (randn(3, 8, **BF16), "tanh"), {}),
    (ops.rotary_embedding, (integers(3, below=9), strided(3, 16), randn(3, 8), randn(9, 6), 8, True), {}),
    (ops.topk_softmax, (strided(5, 7), 3, True), {}),
    (ops.topk_softmax, (randn(5, 7, **BF16), 7), {}),
    (ops.grouped_matmul, (randn(7, 8), randn(3, 4, 8), OFFSETS), {}),
    (ops.grouped_matmul, (strided(7, 8, **BF16), strided(3, 4, 8, **BF16), OFFSETS.long()),
     {"activation": "gate_silu"}),
    (ops.fused_moe, (randn(5, 8), randn(5, 2), integers(5, 2, below=3), randn(3, 12, 8), randn(3, 8, 6)), {}),
    (ops.embedding, (strided(5, 3), integers(2, 4, below=5, dtype=torch.int32)), {}),
    (ops.argmax, (strided(3, 8),), {}),
]  # fmt: skip


DEVICES = ["cpu", "opennpu"]
each_call = pytest.mark.parametrize(("op", "args", "options"), CALLS)


def on(device, values):
    return [x.to(device) if torch.is_tensor(x) else x for x in values]


@each_call
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(op, args, options, device):
    opcheck(op, on(device, args), options)


@each_call
@pytest.mark.parametrize("device", DEVICES)
def test_results_are_dense(op, args, options, device):
    for y in listed(op(*on(device, args), **options)):
        assert y.is_contiguous() and y.device.type == device


@each_call
def test_the_device_computes_what_the_host_does(op, args, options):
    """Sums in another order, and one rounding that may fall to the other side."""
    torch.opennpu.reset_fallbacks()
    expected, found = listed(op(*args, **options)), listed(op(*on("opennpu", args), **options))
    for y, on_chip in zip(expected, found, strict=True):
        tolerance = {"rtol": BF16_ROUNDING, "atol": 1e-2} if y.dtype == torch.bfloat16 else {}
        torch.testing.assert_close(on_chip.cpu(), y, **tolerance)
    assert torch.opennpu.fallbacks() == {}


def listed(results):
    return results if isinstance(results, tuple) else (results,)


def test_a_backward_pass_is_an_error():
    y = ops.silu_and_mul(randn(3, 8).requires_grad_())
    with pytest.raises(NotImplementedError, match="opennpu::silu_and_mul has no gradient: use"):
        y.sum().backward()


def test_matmul_is_linear_with_an_epilogue():
    x, w, bias, residual = (randn(*shape, **BF16) for shape in ((2, 3, 8), (6, 8), (6,), (2, 3, 6)))
    product = x.double() @ w.double().T + bias.double()
    for name, function in {"none": lambda y: y, "relu": F.relu, "silu": F.silu, "gelu": F.gelu}.items():
        y = ops.matmul(x, w, bias, residual, activation=name)
        close(y, function(product) + residual.double())
    close(ops.matmul(x, w.T, bias, transpose_w=False), product)
    gate, up = product.chunk(2, -1)
    close(ops.matmul(x, w, bias, activation="gate_silu"), F.silu(gate) * up)


def test_layer_norm():
    x, w, b = randn(5, 24, **BF16), randn(24), randn(24)
    close(ops.layer_norm(x, w, b, 1e-5), F.layer_norm(x.double(), (24,), w.double(), b.double(), 1e-5))
    close(ops.layer_norm(x, w, None, 1e-5), F.layer_norm(x.double(), (24,), w.double(), None, 1e-5))


def test_embedding_and_argmax():
    table, ids = randn(5, 4), integers(2, 3, below=5)
    assert torch.equal(ops.embedding(table, ids), table[ids])
    assert ops.argmax(torch.tensor([[1.0, 3, 3], [2, float("nan"), 9]])).tolist() == [1, 1]


@pytest.mark.parametrize("renormalize", [False, True])
def test_topk_softmax(renormalize):
    logits = randn(6, 9)
    expected, picks = logits.double().softmax(-1).topk(4)
    if renormalize:
        expected /= expected.sum(-1, keepdim=True)
    weights, ids = ops.topk_softmax(logits, 4, renormalize)
    assert torch.equal(ids.long(), picks)
    torch.testing.assert_close(weights.double(), expected, rtol=1e-6, atol=0)


def test_topk_softmax_of_equals_takes_the_lowest_expert():
    _, ids = ops.topk_softmax(torch.tensor([[1.0, 5, 1, 5, 5]]), 4)
    assert ids.tolist() == [[1, 3, 4, 0]]


def test_grouped_matmul_is_torchs():
    x, w = randn(7, 16, **BF16), randn(3, 16, 16, **BF16)
    expected = torch._grouped_mm(x, w.mT, offs=OFFSETS[1:])
    close(ops.grouped_matmul(x, w, OFFSETS), expected.double())


def test_fused_moe_is_a_sum_over_experts():
    x, weights, w13, w2 = randn(5, 8).double(), randn(5, 2), randn(4, 12, 8).double(), randn(4, 8, 6).double()
    ids = torch.tensor([[0, 2], [2, 0], [3, 3], [2, 3], [0, 2]])
    expected = torch.zeros(5, 8, dtype=torch.float64)
    for t in range(5):
        for weight, e in zip(weights[t], ids[t], strict=True):
            gate, up = (w13[e] @ x[t]).chunk(2)
            expected[t] += weight * (w2[e] @ (F.silu(gate) * up))
    y = ops.fused_moe(x.float(), weights, ids, w13.float(), w2.float())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def close(y, expected):
    torch.testing.assert_close(y.double(), expected, rtol=BF16_ROUNDING, atol=1e-5)


ERRORS = [
    (lambda: ops.matmul(randn(3, 8), randn(4, 7)), ValueError, r"matmul: w has shape \[4, 7\], expected"),
    (lambda: ops.matmul(randn(3, 8), randn(4, 8, **BF16)), TypeError, "w has dtype bfloat16, expected"),
    (lambda: ops.matmul(randn(3, 8), randn(4, 8), randn(3)), ValueError, "bias has shape"),
    (lambda: ops.matmul(randn(3, 8), randn(4, 8), None, randn(3, 3)), ValueError, "residual has shape"),
    (lambda: ops.matmul(randn(3, 8), randn(4, 8), activation="swish"), ValueError, "activation is 'swish'"),
    (lambda: ops.matmul(randn(3, 8), randn(3, 8), activation="gate_silu"), ValueError, "expected an even"),
    (lambda: ops.rms_norm(randn(3, 8).int(), randn(8), 1e-5), TypeError, "rms_norm: x has dtype int32"),
    (lambda: ops.rms_norm(randn(3, 8), randn(7), 1e-5), ValueError, r"w has shape \[7\], expected \[8\]"),
    (lambda: ops.add_rms_norm(randn(3, 8), randn(8), randn(8), 1e-5), ValueError, "residual has shape"),
    (lambda: ops.layer_norm(randn(3, 8), randn(8), randn(3), 1e-5), ValueError, "b has shape"),
    (lambda: ops.silu_and_mul(randn(3, 7)), ValueError, "last extent of x is 7"),
    (lambda: ops.gelu_and_mul(randn(3, 8), "erf"), ValueError, "approximate is 'erf', expected one of"),
    (lambda: ops.rotary_embedding(integers(3, below=4), randn(3, 12), randn(3, 8), randn(9, 8), 8, True),
     ValueError, r"q has shape \[3, 12\], expected \[3, 8\]"),
    (lambda: ops.rotary_embedding(randn(3), randn(3, 8), randn(3, 8), randn(9, 8), 8, True),
     TypeError, "positions has dtype float32, expected int64 or int32"),
    (lambda: ops.topk_softmax(randn(3, 8), 9), ValueError, "k is 9, expected at most the 8 experts"),
    (lambda: ops.grouped_matmul(randn(7, 8), randn(4, 4, 8), OFFSETS), ValueError, "offsets has shape"),
    (lambda: ops.grouped_matmul(randn(9, 8), randn(3, 4, 8), OFFSETS), ValueError, "ascending from 0 to 9"),
    (lambda: ops.fused_moe(randn(5, 8), randn(5, 2), integers(5, 2, below=3), randn(3, 9, 8), randn(3, 8, 6)),
     ValueError, "fused_moe: w13 has shape"),
    (lambda: ops.embedding(randn(3, 8), randn(3)), TypeError, "ids has dtype float32"),
    (lambda: ops.argmax(randn(3, 0)), ValueError, "expected at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), ERRORS)
def test_errors_name_operator_and_argument(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_the_page_is_current():
    assert doc.PATH.read_text() == doc.page(), f"run python -m {doc.__name__}"
