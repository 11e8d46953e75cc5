"""The passes on `npu` keep the results of a program: the interpreter before and after."""

import time

import npu_graphs as graphs
import pytest
import torch
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.passes import registry
from opennpu.compiler.rewriting import functions
from opennpu.dialects import npu
from random_graphs import random_graph, random_inputs
from torch_mlir import ir

FUSIONS = ["npu-fuse-add-norm", "npu-fuse-rope-kv", "npu-fuse-epilogue", "npu-fuse-elementwise"]
PASSES = [*FUSIONS, "npu-roll-layers"]

ROUNDINGS = 8 * 2.0**-9
"""Bound on the relative error of all outputs: fusion rounds to bf16 (2^-9) at fewer places, and
the few layers of the test graphs leave each output a handful of such differences."""


@pytest.fixture(autouse=True)
def context():
    with ir.Context() as context, ir.Location.unknown():
        npu.load()
        registry.load_all()
        torch.manual_seed(0)
        yield context


def apply(module: ir.Module, *passes: str) -> None:
    for name in passes:
        registry.PASSES[name].run(module)
        assert module.operation.verify()


def op_names(module: ir.Module) -> list[str]:
    """The names of the ops of `@main`, without those in regions."""
    return [op.operation.name.removeprefix("npu.") for op in next(functions(module)).regions[0].blocks[0]][
        :-1
    ]


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


# ---- models


@pytest.mark.parametrize("whole_norms", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_llama_keeps_its_results(layers, whole_norms):
    module = graphs.llama(graphs.LlamaShape(layers=layers), whole_norms)
    params = graphs.random_params(module)
    inputs, kv = graphs.llama_inputs([5, 1, 7])
    (expected,) = interpreter.run(module, inputs, params, kv=kv)
    pages = {layer: [x.clone() for x in pair] for layer, pair in kv.layers.items()}
    for name in PASSES:
        apply(module, name)
        kv.layers.clear()
        (got,) = interpreter.run(module, inputs, params, kv=kv)
        assert relative_error(got, expected) < ROUNDINGS, name
        for layer, pair in pages.items():
            for written, before in zip(kv.layers[layer], pair, strict=True):
                assert relative_error(written, before) < ROUNDINGS, name


@pytest.mark.parametrize("whole_norms", [True, False])
def test_llama_becomes_one_repeat_of_seven_ops(whole_norms):
    module = graphs.llama(graphs.LlamaShape(layers=5), whole_norms)
    apply(module, *PASSES)
    assert op_names(module) == ["gather", "rms_norm", "repeat", "matmul"]
    repeat = next(functions(module)).regions[0].blocks[0].operations[2]
    body = [op.operation.name.removeprefix("npu.") for op in repeat.regions[0].blocks[0]]
    layer = ["matmul", "rope_kv_write", "paged_attention", "matmul", "add_rms_norm", "matmul", "matmul"]
    assert body == [*layer, "add_rms_norm", "yield"]
    assert repeat.count.value == 5


def test_rolling_needs_no_fusion():
    """Rolling alone is exact: it does not change what is computed."""
    module = graphs.llama(graphs.LlamaShape(layers=4), whole_norms=False)
    params = graphs.random_params(module)
    inputs, kv = graphs.llama_inputs([3, 6])
    (expected,) = interpreter.run(module, inputs, params, kv=kv)
    kv.layers.clear()
    apply(module, "npu-roll-layers")
    assert op_names(module).count("repeat") == 1
    (got,) = interpreter.run(module, inputs, params, kv=kv)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("layers", [2, 6])
def test_encoder(layers):
    module = graphs.encoder(layers)
    params, inputs = graphs.random_params(module), {"x": torch.randn(7, 16).bfloat16()}
    (expected,) = interpreter.run(module, inputs, params)
    apply(module, *PASSES)
    assert op_names(module) == ["repeat"]
    (got,) = interpreter.run(module, inputs, params)
    assert relative_error(got, expected) < ROUNDINGS


def test_hidden_states_that_are_results_are_not_rolled_over():
    """With the last three of six hidden states as results, only the first layers form a loop."""
    module = graphs.encoder(layers=6, outputs=3)
    params, inputs = graphs.random_params(module), {"x": torch.randn(7, 16).bfloat16()}
    apply(module, *FUSIONS)
    expected = interpreter.run(module, inputs, params)
    apply(module, "npu-roll-layers")
    repeat = next(functions(module)).regions[0].blocks[0].operations[0]
    assert repeat.count.value == 4
    for got, want in zip(interpreter.run(module, inputs, params), expected, strict=True):
        assert torch.equal(got, want)


# ---- random graphs of vector ops


def check_kernel(kernel: ir.Operation) -> None:
    """The region keeps the rules that npu-fuse-elementwise states."""
    *ops, end = (op.operation for op in kernel.regions[0].blocks[0])
    dropping = {op.results[0] for op in ops if op.name == "npu.reduce" and not op.attributes["keepdim"].value}
    inside = {value for op in ops for value in op.results}
    values = (inside | set(npu.captured(kernel))) - dropping
    domain = npu.broadcast(*map(npu.dims, values))
    for value in end.operands:
        if value in dropping:
            assert npu.dims(value) == domain[:-1]
            assert not any(use.owner.operation in ops for use in value.uses)
        else:
            assert npu.dims(value)[:-1] == domain[:-1]
            assert npu.dims(value)[-1:] in (domain[-1:], (1,))
    assert dropping <= set(end.operands)


@pytest.mark.parametrize("seed", range(60))
def test_elementwise_fusion_is_exact(seed):
    module = random_graph(seed)
    inputs = random_inputs()
    expected = interpreter.run(module, inputs, {})
    apply(module, "npu-fuse-elementwise")
    kernels = [op for op in next(functions(module)).regions[0].blocks[0] if op.operation.name == "npu.fused"]
    assert kernels
    for kernel in kernels:
        check_kernel(kernel.operation)
    for got, want in zip(interpreter.run(module, inputs, {}), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


# ---- speed


def test_passes_are_fast_on_32_layers():
    """A bound far above what they take (0.1 s), far below what a quadratic walk over the IR would."""
    module = graphs.llama(graphs.LlamaShape(layers=32), whole_norms=False)
    start = time.process_time()
    apply(module, *PASSES)
    assert time.process_time() - start < 2
