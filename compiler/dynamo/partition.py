"""Graphs cut into parts that the chip computes and what stays between them.

A path through the graph alternates between nodes that are in a part and nodes that are not. The
number of a node is how often the paths to it have left a part, at most; it never falls along an
edge. So all nodes in parts with one number may be one part, and in the order of the numbers, in
each first what is in no part, everything has what it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem

from opennpu.compiler.dynamo.support import VIEWS, is_extent
from torch.fx import Graph, GraphModule, Node
from torch.nn import Module


@dataclass(frozen=True, eq=False)
class Part:
    """Nodes that become a program; `graph` is a copy: placeholders for `inputs`, results for `outputs`."""

    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    graph: Graph


def plan(graph: Graph, supported: Callable[[Node], bool]) -> list[Part | Node]:
    """The graph's operators, those that are supported in parts, in an order to compute them in.

    There is no part of views only.
    """
    inside = {node for node in graph.nodes if not is_extent(node) and supported(node)}
    numbers: dict[Node, int] = {}
    for node in graph.nodes:
        sources = node.all_input_nodes
        if node in inside:  # a program knows extents by its symbols
            sources = [n for n in sources if not is_extent(n)]
        numbers[node] = max((numbers[n] + (n in inside and node not in inside) for n in sources), default=0)
    steps: list[Part | Node] = []
    for number in range(max(numbers.values()) + 1):
        mine = [n for n in graph.nodes if numbers[n] == number and n.op not in ("placeholder", "output")]
        part = [n for n in mine if n in inside]
        worthwhile = any(n.target not in VIEWS for n in part)
        steps += [n for n in mine if n not in inside or not worthwhile]
        steps += [make_part(part)] if worthwhile else []
    return steps


def join(
    module: GraphModule, steps: Sequence[Part | Node], programs: Mapping[tuple[Node, ...], Module]
) -> GraphModule:
    """The module with a call of its program, found by the nodes, in the place of every part."""
    graph = Graph()
    held: dict[str, object] = {
        n.target: getattr(module, n.target) for n in module.graph.find_nodes(op="get_attr")
    }
    copies: dict[Node, Node] = {n: graph.node_copy(n) for n in module.graph.find_nodes(op="placeholder")}
    for i, step in enumerate(steps):
        if isinstance(step, Node):
            copies[step] = graph.node_copy(step, copies.__getitem__)
            continue
        held[f"part_{i}"] = programs[step.nodes]
        call = graph.call_module(f"part_{i}", tuple(copies[n] for n in step.inputs if not is_extent(n)))
        copies.update((n, graph.call_function(getitem, (call, k))) for k, n in enumerate(step.outputs))
    graph.node_copy(module.graph.output_node(), copies.__getitem__)
    joined = GraphModule(held, graph)
    joined.graph.eliminate_dead_code()
    joined.recompile()
    return joined


def make_part(nodes: Sequence[Node]) -> Part:
    """The nodes, in the order of their graph, as a graph of their own."""
    own = set(nodes)
    inputs = tuple(dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in own))
    outputs = tuple(node for node in nodes if any(user not in own for user in node.users))
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    return Part(tuple(nodes), inputs, outputs, graph)
