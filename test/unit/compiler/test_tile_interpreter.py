"""The interpreter of `npu_tile`: complete, and with the results of the reference engine after every pass.

Its engine ops are tested one by one with those of the engines, in test/unit/isa.
"""

import npu_graphs as graphs
import pytest
import torch
from chip_cases import npu_module
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters import npu as npu_interpreter
from opennpu.compiler.interpreters import tile_elements
from opennpu.compiler.interpreters.tile import LEAVES, REGIONS, SCALARS
from opennpu.compiler.interpreters.tile_engines import ENGINES
from opennpu.compiler.interpreters.tile_launch import run, run_on_engine
from opennpu.compiler.interpreters.tile_memory import TileFault
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.compiler.scalar_code import _LOWERINGS
from opennpu.compiler.tile_ir import walk
from opennpu.dialects import load_all, npu
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.npu_tile import NpuTile
from opennpu.dialects.symbols import set_symbol_ranges
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from torch_mlir import ir

CHIP = Chip.load("npu1-lite")


@pytest.fixture(autouse=True)
def context():
    with load_all(ir.Context()) as context, ir.Location.unknown():
        torch.manual_seed(0)
        yield context


def test_every_op_has_a_meaning():
    assert list(ENGINES) == [spec.name for spec in ISA.engine_instructions]
    assert set(tile_elements.UNARY) == set(ISA.enums["unary"])
    assert set(tile_elements.BINARY) == set(tile_elements.INTEGER_BINARY) == set(ISA.enums["binary"])
    assert set(tile_elements.REDUCE) == set(ISA.enums["reduce"])
    assert set(tile_elements.DTYPES) == set(ISA.enums["dtype"])
    known = {*SCALARS, *LEAVES, *REGIONS, *(f"npu_tile.{name}" for name in ENGINES)}
    assert set(_LOWERINGS) - known == set(), "the sequencer computes what the interpreter does not"
    assert {op.OPERATION_NAME for op in NpuTile.operations} - known == set()


MODELS = {
    "decoder": (graphs.llama, lambda: graphs.llama_inputs([5, 1, 9])),
    "encoder": (graphs.encoder, lambda: ({"x": torch.randn(7, 16).bfloat16()}, None)),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_after_every_pass(name):
    """Bit for bit what the reference engine computes: both round where the instruction set says.

    (Its elementary functions may differ in the last place of f32, which bf16 results do not show here.)
    """
    build, make_inputs = MODELS[name]
    module = build()
    bounds = {"T": (1, 64), "B": (1, 8), "P": (1, 8)}
    set_symbol_ranges(module, {symbol: bounds[symbol] for symbol in (bounds if name == "decoder" else "T")})
    params, (inputs, empty) = graphs.random_params(module), make_inputs()
    results, stores = {}, {}

    def interpret(stage, module):
        stores[stage.text] = empty and KvStore(empty.page_size, empty.slots)
        results[stage.text] = run(module, inputs, params, CHIP, kv=stores[stage.text])

    run_pipeline(module, [stage(pass_, CHIP) for pass_ in PIPELINE["npu"][1:]])
    store = empty and KvStore(empty.page_size, empty.slots)
    meant = npu_interpreter.run(module, inputs, params, kv=store)
    run_pipeline(module, [stage(pass_, CHIP) for pass_ in PIPELINE["npu_tile"]], interpret)
    run_pipeline(module, [stage(pass_, CHIP) for pass_ in PIPELINE["npu_isa"]])
    on_engine = empty and KvStore(empty.page_size, empty.slots)
    device = Device(CHIP, engine="reference", race_check=True, hbm_bytes=1 << 26)
    expected = run_on_engine(module, inputs, params, device, kv=on_engine)

    for text, result in results.items():
        for got, want in zip(result, expected, strict=True):
            assert torch.equal(got, want), f"after {text}"
        for layer, pages in (on_engine.layers if on_engine else {}).items():
            for got, want in zip(stores[text].layers[layer], pages, strict=True):
                assert torch.equal(got, want), f"pages after {text}"
    for got, want in zip(expected, meant, strict=True):
        # One bf16 rounding more or less at a few places of three layers.
        torch.testing.assert_close(got.float(), want.float(), rtol=2**-6, atol=2**-6)


# ---- what it refuses

COPY = {"x": ([4, 8], "f32")}


def lowered(passes: int):
    module = npu_module(lambda x: [npu.unary("neg", x)], COPY, {}, {})
    run_pipeline(module, [stage(name, CHIP) for name in PIPELINE["npu_tile"][:passes]])
    return module


def ops(module, name):
    return [op for op in walk(module.body) if op.name == name]


def test_a_load_outside_of_the_buffers():
    module = lowered(1)
    for op in ops(module, "npu_tile.dma_load"):
        with ir.InsertionPoint(op), op.location:
            op.operands[2] = ir.Operation.create(
                "arith.constant",
                results=[op.operands[2].type],
                attributes={"value": ir.IntegerAttr.get(op.operands[2].type, 1 << 40)},
            ).result
    with pytest.raises(TileFault, match=r"npu_tile.dma_load of .* are in no launch buffer"):
        run(module, {"x": torch.ones(4, 8)}, {}, CHIP)


def test_a_wait_without_its_set():
    module = lowered(len(PIPELINE["npu_tile"]))
    for op in ops(module, "npu_tile.set_flag"):
        op.erase()
    with pytest.raises(TileFault, match=r"waits for flag \d+, which nothing before it has set"):
        run(module, {"x": torch.ones(4, 8)}, {}, CHIP)


def test_a_flag_that_is_left():
    module = lowered(len(PIPELINE["npu_tile"]))
    for op in ops(module, "npu_tile.wait_flag"):
        op.erase()
    with pytest.raises(TileFault, match="ends with flags that are set"):
        run(module, {"x": torch.ones(4, 8)}, {}, CHIP)
