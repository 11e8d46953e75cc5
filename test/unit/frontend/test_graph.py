"""Graphs of torch.compile in the torch dialect: how arguments and symbols are named."""

import pytest
import torch
from opennpu.compiler.frontend.graph import import_graph
from opennpu.dialects import load_all
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import symbol_ranges
from torch._subclasses import FakeTensorMode
from torch.fx import Graph
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch_mlir import ir

aten = torch.ops.aten


@pytest.fixture
def fake():
    """fake(shape, dynamic dimensions): a tensor as Dynamo traces with."""
    mode = FakeTensorMode(shape_env=ShapeEnv())

    def make(shape, dynamic=()):
        sizes = [DimDynamic.DYNAMIC if i in dynamic else DimDynamic.STATIC for i in range(len(shape))]
        context = StatelessSymbolicContext(dynamic_sizes=sizes)
        return mode.from_tensor(torch.empty(shape), symbolic_context=context)

    return make


def graph_of(values, build):
    graph = Graph()
    nodes = []
    for i, value in enumerate(values):
        node = graph.placeholder(f"p{i}")
        node.meta["val"] = value
        nodes.append(node)
    graph.output(tuple(build(graph, *nodes)))
    return graph, nodes


def call(graph, target, value, *args):
    node = graph.call_function(target, args)
    node.meta["val"] = value
    return node


def attributes(module, name):
    main = next(op for op in module.body.operations if op.operation.name == "func.func")
    return [{e.name: plain(e.attr) for e in entry} for entry in main.operation.attributes[name]]


def plain(attribute):
    return [a.value for a in attribute] if isinstance(attribute, ir.ArrayAttr) else attribute.value


def test_arguments(fake):
    x, w = fake((5, 8), {0}), fake((8, 8))
    rows = x.shape[0]

    def build(graph, n, x, w):
        product = call(graph, aten.mm.default, torch.mm(x.meta["val"], w.meta["val"]), x, w)
        return [call(graph, aten.view.default, product.meta["val"].view(rows * 8), product, [n])]

    graph, nodes = graph_of([rows * 8, x, w], build)
    module = import_graph(graph, {nodes[2]}, load_all(ir.Context()))
    assert attributes(module, "arg_attrs") == [
        {"npu.extent": "8*s0"},
        {"npu.input": "arg0", "npu.dims": ["s0", "8"]},
        {"npu.param": "param0"},
    ]
    assert attributes(module, "res_attrs") == [{"npu.output": "output"}]
    assert symbol_ranges(module) == {"s0": (1, None)}


def test_extent_of_no_tensor(fake):
    rows = fake((5,), {0}).shape[0]

    def build(graph, n):
        return [call(graph, aten.arange.default, torch.arange(5), n)]

    graph, _ = graph_of([rows], build)
    with pytest.raises(CompileError, match="s0 is the extent of no tensor that goes in"):
        import_graph(graph, set(), load_all(ir.Context()))
