"""Rows that are longer than scratchpad: a vector program as stages, one kernel each.

In a stage a reduction is an end: it is taken piece by piece, always at the same places of the
row, and stored. Later stages read it from memory and compute again what lies between. Softmax
is three stages: the maximum, the sum, the quotients (the passes of Milakov and Gimelshein 2018
before they are made one).
"""

from collections.abc import Callable, Sequence

from opennpu.compiler.kernels.values import View
from opennpu.compiler.kernels.vector_plan import domain_patterns, source
from opennpu.compiler.kernels.vector_program import Node, VectorProgram
from opennpu.compiler.kernels.views import broadcast
from opennpu.dialects.symbols import Dim

COMBINE = {"sum": "add", "sumsq": "add", "max": "max", "min": "min"}
"""Reduction → what joins the results of two pieces."""

FLOATS = ("f32", "bf16")

Scratch = Callable[[Sequence[Dim], str], View]


def stages(program: VectorProgram, scratch: Scratch) -> list[VectorProgram]:
    """Programs to run one after the other that do what `program` does; `scratch` gives memory in between."""
    program = _without_argmax(program)
    patterns, depths = domain_patterns(program), _depths(program)
    stored: dict[Node, View] = {}
    result = []
    for depth in range(max(depths.values()) + 1):
        stage = _Stage(stored)
        for node in [n for n in program.nodes if n.kind == "reduce" and depths[n] == depth]:
            rank = len(node.shape)
            varying = [n if patterns[node][d - rank] else 1 for d, n in enumerate(node.shape)]
            memory = scratch(varying, _exact(node))
            stage.program.output(stage.reduction(node), memory)
            stored[node] = broadcast(memory, node.shape)
        if stage.program.outputs:
            result.append(stage.program)
    last = _Stage(stored)
    for node, view in program.outputs:
        last.program.output(last.node(node), view)
    return [*result, last.program]


class _Stage:
    """Builds one stage: reductions of earlier ones are inputs."""

    def __init__(self, stored: dict[Node, View]):
        self.program = VectorProgram()
        self._stored = dict(stored)
        self._nodes: dict[Node, Node] = {}

    def node(self, node: Node) -> Node:
        if node not in self._nodes:
            if node in self._stored:
                made = self.program.cast(self.program.input(self._stored[node]), node.dtype)
            else:
                made = self.program.copy(node, [self.node(a) for a in node.inputs])
            self._nodes[node] = made
        return self._nodes[node]

    def reduction(self, node: Node) -> Node:
        return self.program.reduce(node.op, self.node(node.inputs[0]), _exact(node))


def _exact(node: Node) -> str:
    """The dtype in which a sum is not rounded before its last piece."""
    return "f32" if node.dtype in FLOATS and COMBINE[node.op] == "add" else node.dtype


def _depths(program: VectorProgram) -> dict[Node, int]:
    """How many reductions, one after the other, each node needs."""
    depths: dict[Node, int] = {}
    for node in program.nodes:
        needs = (depths[a] + (source(a).kind == "reduce") for a in node.inputs)
        depths[node] = max(needs, default=0)
    return depths


def _without_argmax(program: VectorProgram) -> VectorProgram:
    """argmax as the least index of an element that is the maximum, or no number."""
    result = VectorProgram()
    made: dict[Node, Node] = {}
    for node in program.nodes:
        inputs = [made[a] for a in node.inputs]
        is_argmax = node.kind == "reduce" and node.op == "argmax"
        made[node] = _argmax(result, *inputs, node.dtype) if is_argmax else result.copy(node, inputs)
    for node, view in program.outputs:
        result.output(made[node], view)
    return result


def _argmax(p: VectorProgram, x: Node, dtype: str) -> Node:
    greatest = p.reduce("max", x, x.dtype)
    found = p.binary("or", p.binary("eq", x, greatest), p.binary("ne", x, x), "bool")
    index = p.iota(x.shape, len(x.shape) - 1, 0, 1, "i64")
    none = p.extent(x.shape[-1], "i64")
    return p.cast(p.reduce("min", p.select(found, index, none), "i64"), dtype)
