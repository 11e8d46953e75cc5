"""Attention over packed sequences on the chip, against PyTorch in float64."""

import pytest
import torch
from chip_cases import DTYPE
from opennpu.dialects import npu
from tile_cases import OnChip, random

# Probabilities are rounded to bf16 (2^-9 of each value), and so is the result; sums run in f32.
TOLERANCE = {"bf16": 2**-7, "f32": 1e-5}
RANGES = {"T": (1, 4096), "S": (1, 4096), "B": (1, 64)}


class Attention:
    """One op on one chip, called with sequences of random queries, keys and values."""

    def __init__(
        self, heads, kv_heads, d, element="f32", dv=None, causal=True, window=0, cap=0.0, engine="reference"
    ):
        self.heads, self.kv_heads, self.d, self.dv = heads, kv_heads, d, dv or d
        self.element, self.causal, self.window, self.cap = element, causal, window, cap
        inputs = {
            "q": (("T", heads, d), element),
            "k": (("S", kv_heads, d), element),
            "v": (("S", kv_heads, self.dv), element),
            "q_start": (("B + 1",), "i32"),
            "k_start": (("B + 1",), "i64"),
        }
        options = {"scale": d**-0.5, "causal": causal, "window": window, "logit_cap": cap}
        self.on_chip = OnChip(lambda **x: npu.varlen_attention(**x, **options), inputs, RANGES, engine=engine)

    def random(self, rows, keys):
        """Lists by sequence."""
        shapes = (
            (rows, (self.heads, self.d)),
            (keys, (self.kv_heads, self.d)),
            (keys, (self.kv_heads, self.dv)),
        )
        return [
            [random((n, *shape), self.element, 10 * i + j) for j, n in enumerate(counts)]
            for i, (counts, shape) in enumerate(shapes)
        ]

    def __call__(self, q, k, v):
        starts = [torch.tensor([0, *map(len, x)]).cumsum(0) for x in (q, k)]
        q, k, v = map(torch.cat, (q, k, v))
        return self.on_chip(q=q, k=k, v=v, q_start=starts[0].int(), k_start=starts[1])[0]

    def expected(self, q, k, v):
        return torch.cat([self._sequence(*s) for s in zip(q, k, v, strict=True)])

    def _sequence(self, q, k, v):
        n, m, group = len(q), len(k), self.heads // self.kv_heads
        k, v = (x.double().repeat_interleave(group, 1) for x in (k, v))
        s = torch.einsum("qhd,khd->hqk", q.double(), k) * self.d**-0.5
        s = self.cap * torch.tanh(s / self.cap) if self.cap else s
        position, key = torch.arange(m - n, m)[:, None], torch.arange(m)
        seen = torch.ones(n, m, dtype=torch.bool)
        seen &= (key <= position) | (not self.causal)
        seen &= (key > position - self.window) | (self.window == 0)
        p = s.masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0)
        return torch.einsum("hqk,khd->qhd", p, v)


CASES = [
    # heads, kv heads, d, dtype, dv, causal, window, cap, queries, keys
    (9, 3, 64, "bf16", None, True, 0, 0.0, [1], [1]),
    (9, 3, 64, "bf16", None, True, 0, 0.0, [1, 1, 7], [5, 130, 300]),
    (4, 2, 32, "f32", 24, False, 0, 0.0, [5, 130, 0, 200], [300, 1, 7, 200]),
    (4, 1, 32, "f32", None, True, 0, 0.0, [0, 60, 140, 3], [9, 0, 70, 3]),  # no keys; more queries than keys
    (8, 2, 64, "f32", None, True, 50, 5.0, [100, 0, 129], [200, 3, 300]),
    (2, 2, 64, "f32", None, False, 30, 0.0, [100], [400]),
]


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("case", CASES)
def test_against_pytorch(case, engine):
    *parameters, rows, keys = case
    attention = Attention(*parameters, engine=engine)
    q, k, v = attention.random(rows, keys)
    y, expected = attention(q, k, v), attention.expected(q, k, v)
    assert y.dtype == DTYPE[attention.element]
    tolerance = TOLERANCE[attention.element] * max(1, expected.abs().max())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("window", [0, 40])
def test_a_row_does_not_depend_on_the_others(window):
    """Bit for bit: a sequence alone, in company, and the end of it with all of its keys."""
    attention = Attention(6, 2, 32, window=window)
    (q, other), (k, k2), (v, v2) = attention.random([260, 33], [260, 70])
    whole = attention([q], [k], [v])
    assert torch.equal(attention([other, q], [k2, k], [v2, v])[33:], whole)
    assert torch.equal(attention([q[77:]], [k], [v]), whole[77:])


def test_strided_operands():
    """q, k and v as parts of one tensor, heads between the tokens of others: no copies."""

    def build(x, starts):
        q, k, v = (npu.slice_(x, 1, i * 2, 2) for i in range(3))
        return npu.varlen_attention(q, k, v, starts, starts, scale=0.25, causal=True)

    case = OnChip(
        build, {"x": (("T", 6, 16), "f32"), "starts": (("B + 1",), "i64")}, {"T": (1, 4096), "B": (1, 64)}
    )
    assert [entry["kernel"] for entry in case.case.signature.report] == ["varlen_attention"]
    x = random((90, 6, 16), "f32")
    (y,) = case(x=x, starts=torch.tensor([0, 30, 90]))
    attention = Attention(2, 2, 16)
    parts = [part.split([30, 60]) for part in x.split(2, 1)]
    torch.testing.assert_close(y.double(), attention.expected(*parts), rtol=0, atol=1e-5)  # scale is 16**-0.5
