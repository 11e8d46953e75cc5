"""How graphs are cut into parts and joined again, on the host."""

import itertools
from operator import getitem

import pytest
import torch
from opennpu.compiler.dynamo.partition import Part, join, make_part, plan
from opennpu.compiler.dynamo.support import VIEWS, name_of, why_not
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten


def traced(function, *arguments, **options):
    return make_fx(function, **options)(*arguments)


def without(*targets):
    def supported(node):
        operator = node.args[0] if node.target is getitem else node
        return operator.op == "call_function" and operator.target not in targets

    return supported


def names(steps):
    return [
        [n.name for n in step.nodes] if isinstance(step, Part) else step.name
        for step in steps
        if isinstance(step, Part) or step.op == "call_function"
    ]


def test_all_supported_is_one_part():
    graph = traced(lambda x: torch.sin(x).cos(), torch.randn(3)).graph
    assert names(plan(graph, without())) == [["sin", "cos"]]


def test_split_around_an_operator():
    graph = traced(lambda x: torch.sin(torch.cos(torch.exp(x))), torch.randn(3)).graph
    assert names(plan(graph, without(aten.cos.default))) == [["exp"], "cos", ["sin"]]


def test_what_needs_no_part_comes_first():
    """x.cos() outside does not split the part that uses it."""
    graph = traced(lambda x: torch.sin(x.exp()) + x.cos(), torch.randn(3)).graph
    assert names(plan(graph, without(aten.cos.default))) == ["cos", ["exp", "sin", "add"]]


def test_independent_branches_share_a_part():
    def function(x):
        return torch.cos(torch.exp(x)) + torch.cos(torch.sin(x))

    graph = traced(function, torch.randn(3)).graph
    steps = names(plan(graph, without(aten.cos.default)))
    assert steps == [["exp", "sin"], "cos", "cos_1", ["add"]]


def test_views_alone_are_no_part():
    graph = traced(lambda x: torch.cos(x.view(3, 2).t()), torch.randn(6)).graph
    assert names(plan(graph, without(aten.cos.default))) == ["view", "t", "cos"]


def test_extents_do_not_split():
    """A size of what a part computes is known to it by its symbols."""

    def function(x):
        y = torch.exp(x)
        return y.reshape(y.shape[0] * y.shape[1])

    graph = traced(function, torch.randn(3, 5), tracing_mode="symbolic").graph
    parts = [step for step in plan(graph, without()) if isinstance(step, Part)]
    assert len(parts) == 1


def test_part_has_its_own_graph():
    graph = traced(lambda x, y: torch.sin(torch.exp(x) * y), torch.randn(3), torch.randn(3)).graph
    product, sine = list(graph.nodes)[3:5]
    part = make_part([product, sine])
    assert [n.name for n in part.inputs] == ["exp", "y_1"]
    assert [n.name for n in part.outputs] == ["sin"]
    assert [n.op for n in part.graph.nodes] == [
        "placeholder",
        "placeholder",
        *["call_function"] * 2,
        "output",
    ]


class Interpreted(torch.nn.Module):
    def __init__(self, part):
        super().__init__()
        self.module = torch.fx.GraphModule({}, part.graph)

    def forward(self, *tensors):
        return self.module(*tensors)


def several(x, y):
    low, high = x.split(2)
    return torch.sin(low) @ y, torch.topk(high.exp(), 1).values * y[:2].cos(), x


UNSUPPORTED = [aten.sin.default, aten.exp.default, aten.mm.default, aten.topk.default, aten.mul.Tensor]


@pytest.mark.parametrize("refused", [c for n in range(4) for c in itertools.combinations(UNSUPPORTED, n)])
def test_joined_computes_the_same(refused):
    x, y = torch.randn(4, 3), torch.randn(3, 3)
    module = traced(several, x, y)
    steps = plan(module.graph, without(*refused))
    programs = {step.nodes: Interpreted(step) for step in steps if isinstance(step, Part)}
    joined = join(module, steps, programs)
    for result, expected in zip(joined(x, y), several(x, y), strict=True):
        assert torch.equal(result, expected)
    between = {node.target for node in joined.graph.nodes if node.op == "call_function"}
    assert set(refused) <= between <= {*refused, *VIEWS}


def reasons(function, *arguments):
    graph = traced(function, *arguments).graph
    return {name_of(n): why_not(n, "cpu") for n in graph.nodes if n.op == "call_function"}


def test_reasons():
    x = torch.randn(4)
    assert reasons(lambda x: x.sin(), x) == {"aten.sin": None}
    assert reasons(lambda x: x.kthvalue(2)[0], x)["aten.kthvalue"] == "there is no conversion for it"
    assert reasons(lambda x: x.double(), x)["aten._to_copy"] == "the dtype float64"
    node = traced(lambda x: x.sin(), x).graph.find_nodes(op="call_function", target=aten.sin.default)[0]
    assert why_not(node, "opennpu") == "its result is on cpu"
