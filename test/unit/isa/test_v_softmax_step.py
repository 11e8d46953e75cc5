"""v_softmax_step, one step and many, against torch.softmax in float64."""

import pytest
import torch
from chip_lab import Lab, Tile
from opennpu.dialects.isa.encoding import Instruction

# exp is within 4 ulp (of 2^-23), its argument within 2 roundings of |x| ≤ 40, and up to 64 terms are added.
TOLERANCE = (4 + 2 * 40 + 64) * 2.0**-23


class Step:
    """The operands of one v_softmax_step: s [rows][n] and the vectors m, l, alpha."""

    def __init__(self, lab: Lab, rows: int, n: int, p_dtype: str = "f32", scores: torch.Tensor | None = None):
        self.lab, self.rows, self.n = lab, rows, n
        self.s = lab.tile((1, rows, n), "f32", lab.randn((rows, n), 3) if scores is None else scores)
        self.p = lab.tile((1, rows, n), p_dtype)
        self.m = self._vector(-torch.inf)
        self.l = self._vector(0.0)
        self.alpha = self._vector(torch.nan)

    def _vector(self, value: float) -> Tile:
        return self.lab.tile((1, 1, self.rows), "f32", torch.tensor(value), "spm", rows=True)

    def instruction(self, **options) -> Instruction:
        defaults = dict(scale=1.0, cap=0.0, causal=0, group=1, pos=0, key=0, window=0)
        vectors = {name: getattr(self, name).address for name in ("m", "l", "alpha")}
        fields = {"p": self.p.operand, "s": self.s.operand, "rows": self.rows, "n": self.n}
        return Instruction("v_softmax_step", {**fields, **vectors, **defaults, **options})

    def seen(self, causal=0, group=1, pos=0, key=0, window=0, **_) -> torch.Tensor:
        """The mask [rows][n]."""
        q = pos + torch.arange(self.rows)[:, None] // group
        t = key + torch.arange(self.n)
        return ((t <= q) | (causal == 0)) & ((t > q - window) | (window == 0))

    def scores(self, scale=1.0, cap=0.0, **options) -> torch.Tensor:
        """Scaled, capped, masked: f64 [rows][n]."""
        x = self.s.values()[0].double() * scale
        x = cap * torch.tanh(x / cap) if cap else x
        return x.masked_fill(~self.seen(**options), -torch.inf)


def check(step: Step, options: dict) -> None:
    """One step from m = -inf, l = 0: p / l is the softmax of the row."""
    got = step.lab.run(step.instruction(**options))
    after = {
        name: getattr(step, name).view(got.after).double().flatten() for name in ("p", "m", "l", "alpha")
    }
    x = step.scores(**options)
    rounding = 2.0**-8 if step.p.dtype == "bf16" else 0
    some = step.seen(**options).any(1)
    torch.testing.assert_close(after["m"], x.amax(1), rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(after["alpha"], torch.where(some, 0.0, 1.0).double(), rtol=0, atol=0)
    p = torch.where(some[:, None], torch.exp(x - x.amax(1, keepdim=True)), 0.0)
    torch.testing.assert_close(after["p"].reshape(p.shape), p, rtol=TOLERANCE + rounding, atol=1e-38)
    torch.testing.assert_close(after["l"], p.sum(1), rtol=TOLERANCE, atol=0)
    expected = {space: data.clone() for space, data in got.before.items()}
    for name in after:
        getattr(step, name).view(expected).copy_(getattr(step, name).view(got.after))
    got.expect_memory(expected)


@pytest.mark.parametrize("p_dtype", ["f32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.125},
        {"scale": 0.5, "cap": 2.0},
        {"causal": 1, "pos": 5},
        {"causal": 1, "pos": 102, "key": 100, "group": 3},
        {"causal": 1, "pos": -2},  # the first rows see nothing
        {"window": 4, "pos": 3},
        {"causal": 1, "window": 5, "pos": 1000, "key": 990, "group": 2},
    ],
)
def test_one_step(lab, options, p_dtype):
    check(Step(lab, lab.number(3, 9), lab.number(8, 64), p_dtype), options)


def test_in_place(lab):
    step = Step(lab, 5, 30)
    want = torch.softmax(step.scores(), 1)
    step.p = step.s
    got = lab.run(step.instruction())
    have = step.p.view(got.after)[0].double() / step.l.view(got.after)[0, 0].double()[:, None]
    torch.testing.assert_close(have, want, rtol=2 * TOLERANCE, atol=0)


def test_many_steps_make_attention(lab):
    """Blocks of keys, the sum rescaled by alpha between them, as a kernel does it."""
    rows, keys, block, head = 4, 96, 32, 8
    options = {"scale": 0.3, "causal": 1, "pos": 90, "group": 2}
    scores, values = lab.randn((rows, keys), 3), lab.randn((keys, head)).double()
    total, state = torch.zeros(rows, head, dtype=torch.float64), None
    for key in range(0, keys, block):
        step = Step(lab, rows, block, scores=scores[:, key : key + block])
        for name, tensor in (state or {}).items():
            getattr(step, name).view(lab.memory).copy_(tensor)
        got = lab.run(step.instruction(key=key, **options))
        state = {name: getattr(step, name).view(got.after) for name in ("m", "l")}
        alpha, p = step.alpha.view(got.after).double()[0, 0], step.p.view(got.after)[0].double()
        total = total * alpha[:, None] + p @ values[key : key + block]
    visible = torch.arange(keys) <= 90 + torch.arange(rows)[:, None] // 2
    want = torch.softmax((scores.double() * 0.3).masked_fill(~visible, -torch.inf), 1) @ values
    # Three roundings of alpha more; values of size 1 may cancel in the sum over 96 keys.
    torch.testing.assert_close(total / state["l"].double()[0, 0][:, None], want, rtol=0, atol=3 * TOLERANCE)


@pytest.mark.parametrize(("rows", "n"), [(0, 8), (-1, 8)])
def test_empty(lab, rows, n):
    step = Step(lab, 4, 8)
    got = lab.run(step.instruction(rows=rows, n=n))
    got.expect_memory(got.before)


def test_no_columns_keep_the_state(lab):
    step = Step(lab, 3, 8)
    for name, value in (("m", 1.5), ("l", 2.5)):
        getattr(step, name).view(lab.memory).fill_(value)
    lab.run(step.instruction(n=0)).expect(step.alpha, torch.ones(1, 1, 3))
