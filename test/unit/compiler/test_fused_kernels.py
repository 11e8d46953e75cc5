"""Whatever group npu-fuse-elementwise makes compiles, and computes on the chip what its ops mean."""

import json

import pytest
import torch
from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.pass_manager import Stage, run_pipeline
from opennpu.compiler.passes import registry
from opennpu.compiler.pipeline import PIPELINE
from opennpu.dialects import load_all
from opennpu.dialects.symbols import set_symbol_ranges
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from opennpu.runtime.signature import Signature
from random_graphs import random_graph, random_inputs
from torch_mlir import ir

CHIP = Chip.load("npu1-lite")
LOWERING = ["npu-fuse-elementwise", *PIPELINE["npu_tile"], *PIPELINE["npu_isa"]]


def stage(name: str) -> Stage:
    own = registry.load_all().get(name)
    takes_chip = own is not None and "chip" in own.run.__code__.co_varnames
    return Stage(name, own, {"chip": CHIP} if takes_chip else {})


@pytest.mark.parametrize("seed", range(12))
def test_random_groups_on_the_reference_engine(seed):
    torch.manual_seed(seed)
    inputs = random_inputs(tokens=5)
    with load_all(ir.Context()), ir.Location.unknown():
        module = random_graph(seed)
        set_symbol_ranges(module, {"T": (1, 100)})
        expected = interpreter.run(module, inputs, {})
        run_pipeline(module, [stage(name) for name in LOWERING])
        image, signature = assemble(module, CHIP), signature_of(module)
    signature = Signature.from_json(json.dumps({"chip": CHIP.to_dict(), **signature}))
    program = Program(Device(CHIP, engine="reference", race_check=True), image, signature)
    for got, want in zip(program.run(inputs).values(), expected, strict=True):
        # f32 throughout: sums in another order and functions within 4 ulp, through a few dozen ops.
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4, equal_nan=True)
