"""npu-validate's level `op`: every op holds its bound on random shapes, and an op that is wrong does not."""

import math

import pytest
import torch
from opennpu.compiler.interpreters import table
from opennpu.compiler.passes.convert_npu_to_tile import EMITTERS
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.tools.validation.one_op import run
from opennpu.tools.validation.op_bounds import BOUNDS
from opennpu.tools.validation.op_level import measure, ulps
from opennpu.tools.validation.op_random import MAKERS, Maker, at_random, dtypes_of
from torch_mlir import ir


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(Chip.load("npu1-lite"), engine="native", hbm_bytes=1 << 28)


def test_every_op_has_cases():
    """All that has a kernel, but constants, which are operands of others, and what holds other ops."""
    without = {"constant", "extent", "iota", "repeat", "capture"}
    ops = {name.removeprefix("npu.") for name in EMITTERS}
    assert ops - without == {label.partition(" ")[0] for label in MAKERS if dtypes_of(label)}


def test_every_op_holds_its_bound(device):
    context = load_all(ir.Context())
    kinds = [measure(case, *run(case, device, context)) for case in at_random(seed=1, rounds=1)]
    assert len(kinds) > 150
    assert not [(k.op, k.dtype, k.error, k.bound, k.where) for k in kinds if not k.share <= 1]
    assert all(BOUNDS[kind.op].reason for kind in kinds)


@pytest.mark.parametrize(("op", "dtype"), [("tanh", "f32"), ("exp", "bf16"), ("neg", "i32")])
def test_a_wrong_op_leaves_its_bound(device, op, dtype, monkeypatch):
    """The reference is off by 6 ulp of float32, by one of bfloat16, or by one."""
    right = table.UNARY[op]
    factor = {"f32": 1 + 6 * 2.0**-23, "bf16": 1 + 2.0**-7}.get(dtype)
    monkeypatch.setitem(table.UNARY, op, lambda x: right(x) * factor if factor else right(x) + 1)
    case = MAKERS[f"unary {op}"](Maker(f"unary {op}", dtype, 0))
    assert measure(case, *run(case, device, load_all(ir.Context()))).share > 1


def test_ulps():
    one = torch.tensor([1.0])
    assert ulps(one + 2**-23, one.double(), 0) == 1
    assert ulps(one.bfloat16(), one.double() + 2**-8, 0) == 0.5
    rows = torch.tensor([[4.0, 1.0]])
    assert ulps(rows + torch.tensor([[0, 2**-23]]), rows.double(), 0, row=True) == 0.25
    assert ulps(torch.tensor([math.inf, math.nan]), torch.tensor([math.inf, math.nan]).double(), 0) == 0
    assert ulps(torch.tensor([math.nan]), one.double(), 0) == math.inf
