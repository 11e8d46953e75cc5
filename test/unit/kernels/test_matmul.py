"""Matrix products on the reference engine against float64 PyTorch."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from chip_cases import DTYPE, Case
from opennpu.compiler.kernels.choices import Choices
from opennpu.dialects import npu
from opennpu.runtime.chip import Chip

ACTIVATIONS = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
}
GATES = {"gate_silu": "silu", "gate_gelu": "gelu", "gate_gelu_tanh": "gelu_tanh"}

# The result is rounded once: half a unit in the last place of bf16, 2^-9 of the value. A sum
# of K products in f32 is off by at most K·2^-24 of Σ|x·w|, here below 1e-5 of the largest value.
TOLERANCE = {"bf16": 2**-8, "f32": 1e-5}


def close(actual: torch.Tensor, expected: torch.Tensor, element: str) -> None:
    assert actual.dtype == DTYPE[element] and actual.shape == expected.shape
    scale = expected.abs().max().clamp(min=1e-3)
    assert ((actual.double() - expected).abs().max() / scale).item() < TOLERANCE[element]


def reference(x, w, epilogue, bias, residual):
    y = x.double() @ w.double().T
    for step in epilogue:
        if step == "bias":
            y = y + bias.double()
        elif step == "residual":
            y = y + residual.double()
        elif step in GATES:
            gate, up = y.chunk(2, -1)
            y = ACTIVATIONS[GATES[step]](gate) * up
        else:
            y = ACTIVATIONS[step](y)
    return y


SMALL = replace(Chip.load("npu1-lite"), name="small", spm_kib=256, acc_kib=64)

PACKED = [
    # K, N, dtype, epilogue, transposed, result: strips, tiles and pairs whole and cut
    (64, 64, "bf16", [], True, "bf16"),
    (576, 576, "bf16", ["bias", "gelu", "residual"], True, "bf16"),
    (131, 300, "f32", ["residual", "tanh"], True, "f32"),
    (33, 70, "bf16", ["relu"], False, "f32"),
    (200, 320, "f32", ["gate_silu"], True, "f32"),
    (64, 272, "f32", ["gate_silu", "bias"], True, "f32"),
    (100, 200, "bf16", ["bias", "gate_gelu_tanh", "residual"], True, "bf16"),
    (1, 1, "f32", ["bias"], True, "f32"),
]


@pytest.mark.parametrize(("k", "n", "element", "epilogue", "transposed", "result"), PACKED)
@pytest.mark.parametrize("chip", ["npu1-lite", "npu1"])
def test_packed_weight(k, n, element, epilogue, transposed, result, chip):
    torch.manual_seed(k)
    columns = n // 2 if any(step in GATES for step in epilogue) else n
    w = (torch.randn(n, k) / k**0.5).to(DTYPE[element])
    gated = any(step in GATES for step in epilogue[: epilogue.index("bias")]) if "bias" in epilogue else False
    bias = torch.randn(columns if gated else n).to(DTYPE[element])
    params = {"w": w if transposed else w.T.contiguous(), "bias": bias}
    inputs = {"x": (["T", k], element), "residual": (["T", columns], element)}

    def build(x, w, bias, residual):
        extra = {"bias": bias, "residual": residual}
        return [npu.matmul(x, w, transposed, epilogue, [extra[s] for s in epilogue if s in extra], result)]

    case = Case(build, inputs, params, {"T": (0, 4096)}, chip)
    for rows in (0, 1, 5, 130):
        x, residual = (torch.randn(rows, width).to(DTYPE[element]) for width in (k, columns))
        (y,) = case(x=x, residual=residual)
        if rows:
            close(y, reference(x, w, epilogue, bias, residual), result)


@pytest.mark.parametrize("k", [200, 4000], ids=["x stays", "sums stay"])
def test_a_row_does_not_depend_on_the_batch(k):
    torch.manual_seed(0)
    w = torch.randn(300, k).bfloat16()
    case = Case(
        lambda x, w: [npu.matmul(x, w, True)], {"x": (["T", k], "bf16")}, {"w": w}, {"T": (1, None)}, SMALL
    )
    assert case.signature.report[0]["kernel"] == ("matmul_packed" if k == 200 else "matmul_sums")
    x = torch.randn(150, k).bfloat16()
    whole = case(x=x)[0]
    for lo, hi in ((0, 1), (7, 20), (127, 150)):
        assert torch.equal(case(x=x[lo:hi])[0], whole[lo:hi])


SUMS = [
    # K, N, epilogue: blocks of rows, of columns and parts of K whole and cut
    (4096, 96, []),
    (4200, 250, ["bias", "residual"]),
    (2900, 360, ["gate_silu", "bias"]),
]


@pytest.mark.parametrize(("k", "n", "epilogue"), SUMS)
@pytest.mark.parametrize("cores", [1, 6])
def test_sums_in_scratchpad(k, n, epilogue, cores):
    """A chip too small for many rows of x at a time."""
    torch.manual_seed(k)
    columns = n // 2 if "gate_silu" in epilogue else n
    w = (torch.randn(n, k) / k**0.5).bfloat16()
    params = {"w": w, "bias": torch.randn(columns).bfloat16()}
    inputs = {"x": (["T", k], "bf16"), "residual": (["T", columns], "bf16")}

    def build(x, w, bias, residual):
        extra = {"bias": bias, "residual": residual}
        return [npu.matmul(x, w, True, epilogue, [extra[s] for s in epilogue if s in extra], "f32")]

    case = Case(build, inputs, params, {"T": (0, 4096)}, replace(SMALL, cores=cores))
    assert case.signature.report[0]["kernel"] == "matmul_sums"
    for rows in (0, 1, 130):
        x, residual = (torch.randn(rows, width).bfloat16() for width in (k, columns))
        (y,) = case(x=x, residual=residual)
        if rows:
            close(y, reference(x, w, epilogue, params["bias"], residual), "f32")


@pytest.mark.parametrize("cores", [2, 4])
def test_x_in_parts(cores):
    """More column tiles than take x while it comes; one block of rows and two."""
    torch.manual_seed(cores)
    w = (torch.randn(512, 512) / 512**0.5).bfloat16()
    chip = replace(Chip.load("npu1-lite"), name="parts", cores=cores, acc_kib=384)

    def build(x, w):
        return [npu.matmul(x, w, True, ["relu"], [], "f32")]

    case = Case(build, {"x": (["T", 512], "bf16")}, {"w": w}, {"T": (0, 4096)}, chip)
    assert case.signature.report[0]["acc"] == 3 * 240 * 128 * 4, "three tiles at once"
    for rows in (0, 1, 300, 520):
        x = torch.randn(rows, 512).bfloat16()
        (y,) = case(x=x)
        if rows:
            close(y, reference(x, w, ["relu"], None, None), "f32")


def test_long_rows_stream_tile_by_tile():
    torch.manual_seed(0)
    w = torch.randn(17, 20000) / 141
    case = Case(lambda x, w: [npu.matmul(x, w, True)], {"x": (["T", 20000], "f32")}, {"w": w}, {"T": (1, 64)})
    x = torch.randn(18, 20000)
    close(case(x=x)[0], reference(x, w, [], None, None), "f32")


def test_rows_of_a_slice():
    torch.manual_seed(0)
    w = torch.randn(48, 40)

    def build(x, w):
        return [npu.matmul(npu.slice_(npu.slice_(x, 1, 30, 40), 0, 3, 5, 2), w, True)]

    x = torch.randn(20, 100)
    (y,) = Case(build, {"x": ([20, 100], "f32")}, {"w": w})(x=x)
    close(y, x[3:13:2, 30:70].double() @ w.double().T, "f32")


# ---- products of two activations


@pytest.mark.parametrize(
    ("batch", "rows", "columns", "heads", "width", "element"),
    [(2, 5, 7, 3, 64, "bf16"), (1, 130, 257, 2, 40, "f32"), (3, 1, 1, 4, 16, "bf16")],
)
def test_scores_and_values(batch, rows, columns, heads, width, element):
    """q·kᵀ (both transposed views) and p·v, as in attention without pages."""
    torch.manual_seed(0)

    def build(q, k, v):
        q, k, v = (npu.transpose(t, [0, 2, 1, 3]) for t in (q, k, v))
        p = npu.matmul(q, k, True)
        return [p, npu.matmul(p, v)]

    shapes = {"q": ["B", "S", heads, width], "k": ["B", "U", heads, width], "v": ["B", "U", heads, width]}
    case = Case(
        build,
        {name: (shape, element) for name, shape in shapes.items()},
        ranges={"B": (1, 8), "S": (1, 300), "U": (1, None)},
    )
    q = torch.randn(batch, rows, heads, width).to(DTYPE[element])
    k, v = (torch.randn(batch, columns, heads, width).to(DTYPE[element]) for _ in range(2))
    scores, out = case(q=q, k=k, v=v)
    close(scores, q.double().transpose(1, 2) @ k.double().permute(0, 2, 3, 1), element)
    close(out, scores.double() @ v.double().transpose(1, 2), element)


@pytest.mark.parametrize("transposed", [False, True])
def test_one_matrix_for_all_batches(transposed):
    torch.manual_seed(0)
    x, w, bias, residual = (
        torch.randn(2, 9, 33),
        torch.randn(150, 33),
        torch.randn(150),
        torch.randn(2, 9, 150),
    )

    def build(x, w, bias, residual):
        return [npu.matmul(x, w, transposed, ["bias", "relu", "residual"], [bias, residual])]

    given = {"x": x, "w": w if transposed else w.T.contiguous(), "bias": bias, "residual": residual}
    case = Case(build, {name: (tuple(t.shape), "f32") for name, t in given.items()})
    close(case(**given)[0], reference(x, w, ["bias", "relu", "residual"], bias, residual), "f32")


def test_gate_of_an_activation():
    torch.manual_seed(0)
    x, w = torch.randn(9, 33), torch.randn(300, 33)
    given = {"x": x, "w": w}
    case = Case(
        lambda x, w: [npu.matmul(x, w, True, ["gate_silu"])],
        {name: (tuple(t.shape), "f32") for name, t in given.items()},
    )
    close(case(**given)[0], reference(x, w, ["gate_silu"], None, None), "f32")


# ---- a weight that is no parameter: what the eager device multiplies with


@pytest.mark.parametrize("chip", ["npu1-lite", "npu1"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bound", [None, 400])
def test_every_extent_a_symbol(bound, transposed, chip):
    """Few rows (the cores share the columns) and many (they share the rows); K in cuts and whole."""
    shape = ["N", "K"] if transposed else ["K", "N"]
    case = Case(
        lambda x, w: [npu.matmul(x, w, transposed)],
        {"x": (["M", "K"], "f32"), "w": (shape, "f32")},
        ranges={name: (1, bound) for name in "MNK"},
        chip=chip,
    )
    for m, n, k in ((1, 1, 1), (1, 300, 400), (3, 130, 129), (300, 33, 17), (140, 400, 300)):
        torch.manual_seed(m)
        x, w = torch.randn(m, k), torch.randn(n, k)
        (y,) = case(x=x, w=w if transposed else w.T.contiguous())
        close(y, reference(x, w, [], None, None), "f32")


def test_a_row_times_an_activation_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    x, w = torch.randn(300, 200).bfloat16(), torch.randn(96, 200).bfloat16()
    case = Case(
        lambda x, w: [npu.matmul(x, w, True)],
        {"x": (["M", 200], "bf16"), "w": ([96, 200], "bf16")},
        ranges={"M": (1, None)},
    )
    whole = case(x=x, w=w)[0]
    for lo, hi in ((0, 1), (7, 20), (127, 300)):
        assert torch.equal(case(x=x[lo:hi], w=w)[0], whole[lo:hi])


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_to_add_up(packed):
    """K = 0: the bias alone."""
    x, w, bias = torch.empty(3, 0), torch.empty(20, 0), torch.randn(20)

    def build(x, w, bias):
        return [npu.matmul(x, w, True, ["bias"], [bias])]

    given = {"x": x, "bias": bias} if packed else {"x": x, "w": w, "bias": bias}
    inputs = {name: (tuple(t.shape), "f32") for name, t in given.items()}
    (y,) = Case(build, inputs, {"w": w} if packed else {})(**given)
    assert torch.equal(y, bias.expand(3, 20))


def test_products_of_one_name_have_the_same_tilings(monkeypatch):
    """Of one shape of w, but other dtypes, residuals and bounds on the rows."""
    offered, choose = [], Choices.choose

    def record(self, product, tilings):
        offered.append((product, tilings))
        return choose(self, product, tilings)

    monkeypatch.setattr(Choices, "choose", record)

    def build(x, few, half, w, halved):
        wide = npu.matmul(x, w, True)
        narrow = npu.matmul(half, halved, True)
        return [
            wide,
            npu.matmul(x, w, True),
            npu.matmul(few, w, True),
            narrow,
            npu.matmul(half, halved, True, ["residual"], [narrow]),
            npu.matmul(half, halved, True, ["residual"], [wide]),
        ]

    w = torch.randn(192, 256)
    Case(
        build,
        {"x": (["M", 256], "f32"), "few": ([4, 256], "f32"), "half": (["M", 256], "bf16")},
        {"w": w, "halved": w.bfloat16()},
        ranges={"M": (1, 2048)},
    )
    assert len(offered) == 6 and len(dict(offered)) == 5
    assert all(tilings == dict(offered)[product] for product, tilings in offered)
