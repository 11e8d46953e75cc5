"""Mixture of experts on the reference engine against PyTorch."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from chip_cases import DTYPE, Case
from opennpu.dialects import npu
from tile_cases import OnChip

# One rounding to bf16, 2^-9 of the value; in f32 sums in another order, as in test_matmul.py.
TOLERANCE = {"bf16": 2**-8, "f32": 1e-5}
TOKENS = {"T": (0, 4096)}


def close(actual, expected, element):
    scale = expected.abs().max().clamp(min=1e-3)
    assert actual.shape == expected.shape
    assert ((actual.double() - expected).abs().max() / scale).item() < TOLERANCE[element]


# ---- routing


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(
    ("experts", "k", "element"), [(8, 2, "f32"), (128, 8, "bf16"), (5, 5, "f32"), (1, 1, "bf16")]
)
def test_topk_softmax(kernel_of, experts, k, element, renormalize):
    case = kernel_of(
        lambda logits: npu.topk_softmax(logits, k, renormalize), {"logits": (["T", experts], element)}, TOKENS
    )
    for tokens in (1, 3, 200):
        torch.manual_seed(tokens)
        logits = torch.randn(tokens, experts).to(DTYPE[element])
        weights, ids = case({"T": tokens}, logits=logits)
        order = torch.sort(logits.double().softmax(-1), dim=-1, descending=True, stable=True)
        expected = order.values[:, :k]
        assert torch.equal(ids.long(), order.indices[:, :k])
        close(weights, expected / expected.sum(-1, keepdim=True) if renormalize else expected, "f32")


def test_topk_softmax_of_rows_of_a_bounded_symbol():
    case = Case(
        lambda logits: npu.topk_softmax(logits, 2),
        {"logits": (["T", "E"], "f32")},
        ranges={**TOKENS, "E": (2, 64)},
    )
    logits = torch.randn(3, 10)
    assert torch.equal(case(logits=logits)[1].long(), logits.topk(2).indices)


# ---- the order of the experts


@pytest.mark.parametrize(("experts", "k"), [(4, 1), (8, 2), (300, 8), (128, 100)])
def test_sort_experts(experts, k):
    case = OnChip(lambda ids: npu.sort_experts(ids, experts), {"ids": (["T", k], "i32")}, TOKENS)
    for tokens in (1, 5, 130):
        torch.manual_seed(tokens)
        ids = torch.randint(0, experts, (tokens, k), dtype=torch.int32)
        rows, matrices, offsets = case({"T": tokens}, ids=ids)
        order = torch.sort(ids.flatten().long(), stable=True)
        assert torch.equal(rows.T.flatten().long(), order.indices.argsort())
        chosen, counts = order.values.unique(return_counts=True)
        assert torch.equal(matrices, F.pad(chosen, (0, experts - len(chosen))).int())
        empty = torch.zeros(experts - len(chosen), dtype=torch.int32)
        assert torch.equal(offsets, offsets_of([*counts.tolist(), *empty.tolist()]))


@pytest.mark.parametrize(("width", "bound"), [(40, None), (576, None), ("H", 1000), ("H", None)])
def test_scatter_and_combine(width, bound):
    """Rows there and back: with weights that add up to 1, the row itself."""
    k = 3
    inputs = {"x": (["T", width], "f32"), "rows": ([k, "T"], "i32"), "weights": (["T", k], "f32")}

    def build(x, rows, weights):
        there = npu.scatter_rows(x, rows)
        return there, npu.combine_rows(there, rows, weights)

    case = OnChip(build, inputs, {**TOKENS, **({"H": (1, bound)} if width == "H" else {})})
    for tokens in (1, 150):
        torch.manual_seed(tokens)
        x = torch.randn(tokens, 77 if width == "H" else width)
        rows = torch.randperm(k * tokens, dtype=torch.int32).view(k, tokens)
        weights = torch.rand(tokens, k).softmax(-1)
        there, back = case({"T": tokens, "H": x.shape[1]}, x=x, rows=rows, weights=weights)
        assert torch.equal(there[rows.long()], x.expand(k, -1, -1))
        close(back, x.double(), "f32")


# ---- products


def offsets_of(counts):
    return torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)


def reference(x, w, offsets, gate=False):
    parts = [x[a:b].double() @ w[e].double().T for e, (a, b) in enumerate(pairwise(offsets))]
    y = torch.cat(parts)
    return F.silu(y.chunk(2, -1)[0]) * y.chunk(2, -1)[1] if gate else y


COUNTS = [[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [5, 0, 200, 3], [0, 0, 0, 150]]


@pytest.mark.parametrize("chip", ["npu1-lite", "npu1"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("k", "n", "element", "gate"), [(64, 96, "bf16", False), (200, 320, "f32", True), (33, 50, "bf16", True)]
)
def test_grouped_matmul(k, n, element, gate, packed, chip):
    torch.manual_seed(k)
    w = (torch.randn(4, n, k) / k**0.5).to(DTYPE[element])
    given = {"w": w}
    inputs = {"x": (["R", k], element), "offsets": ([5], "i32")} | (
        {} if packed else {"w": (w.shape, element)}
    )

    def build(x, offsets, w):
        return [npu.grouped_matmul(x, w, offsets, ["gate_silu"] if gate else [])]

    case = Case(build, inputs, given if packed else {}, {"R": (0, 4096)}, chip)
    for counts in COUNTS:
        offsets = offsets_of(counts)
        x = torch.randn(sum(counts), k).to(DTYPE[element])
        (y,) = case(x=x, offsets=offsets, **({} if packed else given))
        if len(x):
            close(y, reference(x, w, offsets, gate), element)


def test_groups_that_name_their_matrix():
    torch.manual_seed(0)
    w, x = torch.randn(4, 96, 64), torch.randn(7, 64)
    case = Case(
        lambda x, offsets, matrices, w: [npu.grouped_matmul(x, w, offsets, matrices=matrices)],
        {"x": (["R", 64], "f32"), "offsets": ([5], "i32"), "matrices": ([4], "i32")},
        {"w": w},
        {"R": (0, None)},
    )
    matrices = torch.tensor([3, 1, 0, 0], dtype=torch.int32)
    for counts in ([7, 0, 0, 0], [2, 5, 0, 0], [1, 1, 0, 0]):
        offsets, rows = offsets_of(counts), x[: sum(counts)]
        (y,) = case(x=rows, offsets=offsets, matrices=matrices)
        close(y, reference(rows, w[matrices.long()], offsets), "f32")


@pytest.mark.parametrize("packed", [True, False])
def test_a_row_does_not_depend_on_its_group(packed):
    torch.manual_seed(0)
    w = torch.randn(3, 96, 200).bfloat16()
    inputs = {"x": (["R", 200], "bf16"), "offsets": ([4], "i32")} | (
        {} if packed else {"w": (w.shape, "bf16")}
    )
    case = Case(
        lambda x, offsets, w: [npu.grouped_matmul(x, w, offsets)],
        inputs,
        {"w": w} if packed else {},
        {"R": (0, None)},
    )
    given = {} if packed else {"w": w}
    x = torch.randn(150, 200).bfloat16()
    whole = case(x=x, offsets=offsets_of([0, 150, 0]), **given)[0]
    for lo, hi in ((0, 1), (7, 20), (127, 150)):
        part = case(x=torch.cat([x[:3], x[lo:hi]]), offsets=offsets_of([3, hi - lo, 0]), **given)[0]
        assert torch.equal(part[3:], whole[lo:hi])
