"""`npu` ops → vector programs: one small function for each op that a program can hold."""

from collections.abc import Callable

from opennpu.compiler.kernels import norm
from opennpu.compiler.kernels.values import View, view_type
from opennpu.compiler.kernels.vector_program import Node, VectorProgram
from opennpu.compiler.kernels.views import slice_dim, unsqueeze
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import dim, exact_div
from torch_mlir import ir


class Import:
    """Values of the module as nodes of one program; values from outside become its inputs."""

    def __init__(self, program: VectorProgram, view_of: Callable[[ir.Value], View]):
        self.program = program
        self._view_of = view_of
        self._nodes: dict[ir.Value, Node] = {}

    def run(self, op: ir.OpView) -> list[Node]:
        """Adds an op, or the ops of a fused one; returns the nodes of its results."""
        if op.operation.name == "npu.fused":
            *inner, terminator = op.regions[0].blocks[0].operations
            for each in inner:
                self.run(each)
            return [self.node(value) for value in terminator.operands]
        made = IMPORTERS[op.operation.name](self, op)
        results = list(made) if isinstance(made, tuple) else [made]
        self._nodes.update(zip(op.results, results, strict=True))
        return results

    def node(self, value: ir.Value) -> Node:
        if value not in self._nodes:
            self._nodes[value] = self.program.input(self._view_of(value))
        return self._nodes[value]

    def operands(self, op: ir.OpView) -> list[Node]:
        return [self.node(x) for x in op.operands]

    def halves(self, op: ir.OpView) -> tuple[Node, Node]:
        """The operand's last dimension in two: two inputs with views of their own."""
        value = op.operands[0]
        if value in self._nodes:
            what = f"'{op.operation.name}' must read from memory, not from its own kernel"
            raise CompileError(Problem(what, describe(op.location)))
        view = self._view_of(value)
        half, last = exact_div(view.shape[-1], 2), view.rank - 1
        first, second = (slice_dim(view, last, start, half) for start in (0, half))
        return self.program.input(first), self.program.input(second)


def stored_view(node: Node, view: View) -> View:
    """The output's view with the dimension that the reduction behind it dropped."""
    return unsqueeze(view, view.rank) if view.rank < len(node.shape) else view


def _dtype(op: ir.OpView) -> str:
    return view_type(op.results[0])[1]


def _shape(op: ir.OpView):
    return view_type(op.results[0])[0]


def _constant(i: Import, op: ir.OpView) -> Node:
    value = i.program.constant(op.value.value, _dtype(op))
    return i.program.broadcast(value, _shape(op))


def _extent(i: Import, op: ir.OpView) -> Node:
    return i.program.extent(dim(op.value.value), _dtype(op))


def _iota(i: Import, op: ir.OpView) -> Node:
    return i.program.iota(_shape(op), op.dim.value, op.start.value, op.step.value, _dtype(op))


def _unary(i: Import, op: ir.OpView) -> Node:
    return i.program.unary(op.op.value, *i.operands(op))


def _binary(i: Import, op: ir.OpView) -> Node:
    return i.program.binary(op.op.value, *i.operands(op))


def _select(i: Import, op: ir.OpView) -> Node:
    return i.program.select(*i.operands(op))


def _cast(i: Import, op: ir.OpView) -> Node:
    return i.program.cast(*i.operands(op), _dtype(op))


def _broadcast(i: Import, op: ir.OpView) -> Node:
    return i.program.broadcast(*i.operands(op), _shape(op))


def _reduce(i: Import, op: ir.OpView) -> Node:
    (x,) = i.operands(op)
    if op.dim.value != len(x.shape) - 1:
        raise CompileError(
            Problem("a fused reduction must be along the last dimension", describe(op.location))
        )
    return reduce_last(i.program, op.op.value, x, _dtype(op))


def reduce_last(program: VectorProgram, op: str, x: Node, dtype: str) -> Node:
    return norm.mean(program, x, dtype) if op == "mean" else program.reduce(op, x, dtype)


def _softmax(i: Import, op: ir.OpView) -> Node:
    return norm.softmax(i.program, *i.operands(op), _dtype(op))


def _rms_norm(i: Import, op: ir.OpView) -> Node:
    return norm.rms_norm(i.program, *i.operands(op), op.eps.value, _dtype(op))


def _add_rms_norm(i: Import, op: ir.OpView) -> tuple[Node, Node]:
    return norm.add_rms_norm(i.program, *i.operands(op), op.eps.value, _dtype(op))


def _layer_norm(i: Import, op: ir.OpView) -> Node:
    return norm.layer_norm(i.program, *i.operands(op), op.eps.value, _dtype(op))


def _silu_and_mul(i: Import, op: ir.OpView) -> Node:
    return norm.gated(i.program, "silu", *i.halves(op), _dtype(op))


def _gelu_and_mul(i: Import, op: ir.OpView) -> Node:
    activation = "gelu_tanh" if op.approximate.value == "tanh" else "gelu"
    return norm.gated(i.program, activation, *i.halves(op), _dtype(op))


IMPORTERS: dict[str, Callable[[Import, ir.OpView], Node | tuple[Node, ...]]] = {
    "npu.constant": _constant,
    "npu.extent": _extent,
    "npu.iota": _iota,
    "npu.unary": _unary,
    "npu.binary": _binary,
    "npu.select": _select,
    "npu.cast": _cast,
    "npu.broadcast": _broadcast,
    "npu.reduce": _reduce,
    "npu.softmax": _softmax,
    "npu.rms_norm": _rms_norm,
    "npu.add_rms_norm": _add_rms_norm,
    "npu.layer_norm": _layer_norm,
    "npu.silu_and_mul": _silu_and_mul,
    "npu.gelu_and_mul": _gelu_and_mul,
}
