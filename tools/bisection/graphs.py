"""Few neighbouring nodes of an exported graph as a program of their own, on the values that reach them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.archive import tensors as values_of
from opennpu.compiler.frontend.importer import CHECKS
from opennpu.compiler.frontend.ops import KvStore, kv_store
from opennpu.tools.bisection.levels import Values
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

WIDEST = 8
"""Nodes of the widest window that is tried before the whole graph."""


@dataclass(frozen=True)
class Piece:
    """An archive, its inputs, and the nodes that it is made of."""

    archive: Archive
    values: Values
    nodes: list[str]


def smallest(archive: Archive, values: Values, differs: Callable[[Archive, Values], bool]) -> Piece | None:
    """The first of the narrowest windows of nodes that `differs`; extents are numbers in it."""
    known = _known(archive, values)
    nodes = [n for n in archive.program.graph.nodes if n.op == "call_function" and n.target not in CHECKS]
    width = 1
    while width <= min(WIDEST, 2 * len(nodes)):
        for piece in _pieces(nodes, width, known):
            if differs(piece.archive, piece.values):
                return piece
        width *= 2
    return None


class _Recorder(Interpreter):
    """Keeps the value of every node."""

    def __init__(self, program):
        super().__init__(program.graph_module)
        self.known: dict[Node, object] = {}

    def run_node(self, node: Node):
        self.known[node] = super().run_node(node)
        return self.known[node]


def _known(archive: Archive, values: Values) -> dict[Node, object]:
    values, held = values.fresh(), values_of(archive.program)
    recorder = _Recorder(archive.program)
    arguments = [
        held[spec.target] if spec.target in held else values.inputs[spec.arg.name]
        for spec in archive.program.graph_signature.input_specs
    ]
    with torch.no_grad(), kv_store(values.kv or KvStore(1, 0)):
        recorder.run(*arguments)
    return recorder.known


def _pieces(nodes: list[Node], width: int, known: dict[Node, object]) -> Iterator[Piece]:
    for end, last in enumerate(nodes):
        chosen = _feeding(nodes[max(0, end + 1 - width) : end + 1])
        if isinstance(known[last], Tensor) and (width == 1 or len(chosen) > width // 2):
            try:
                yield _piece(chosen, known)
            except Exception:
                continue


def _feeding(nodes: list[Node]) -> list[Node]:
    needed = {nodes[-1]}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in nodes if node in needed]


def _piece(nodes: list[Node], known: dict[Node, object]) -> Piece:
    graph, made, inputs = Graph(), {}, {}
    outside = dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in nodes)
    for node in outside:
        if isinstance(known[node], Tensor):
            made[node] = graph.placeholder(f"v{len(inputs)}")
            inputs[f"v{len(inputs)}"] = known[node].detach()

    def argument(node: Node):
        return made.get(node, known[node])

    for node in nodes:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), argument)
        made[node] = graph.create_node("call_function", node.target, args, kwargs)
    graph.output(made[nodes[-1]])
    program = torch.export.export(GraphModule(torch.nn.Module(), graph), tuple(inputs.values()), strict=False)
    return Piece(Archive(program), Values(inputs, {}), [f"{node.target} ({node.name})" for node in nodes])
