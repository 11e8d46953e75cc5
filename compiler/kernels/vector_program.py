"""A vector program: what a group of element-wise and row-wise ops computes, as a graph.

Every node is one value over (a broadcast of) a common domain [d0, …, C]; shapes are
aligned on the right, numpy's rules. Composite ops (softmax, norms) are already written
in terms of what the vector unit does: `norm.py` has them. `vector_plan.py` chooses the
tiles, `vector.py` makes the code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.dialects.symbols import Dim

SPREAD = object()
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the program.

    kind: input (of `view`), fill (with `value`), extent (the scalar `value`, a Dim),
    iota (value[0] + value[1]·index along dimension `dim`, counted from the right: -1 is
    the last), unary, binary, select, reduce (along the last dimension, which stays as 1).
    """

    kind: str
    dtype: str
    shape: tuple[Dim, ...]
    inputs: tuple["Node", ...] = ()
    op: str = ""
    value: object = None
    dim: int = 0

    @property
    def is_spread(self) -> bool:
        """Whether its buffer holds every element, repeated ones too."""
        return self.value is SPREAD

    @property
    def is_scalar(self) -> bool:
        return self.kind in ("fill", "extent")


def neutral(op: str, dtype: str) -> float | int:
    """What a reduction of no elements gives."""
    is_float = dtype in ("f32", "bf16")
    if op not in ("max", "min"):
        return 0.0 if is_float else 0
    if dtype == "bool":
        return int(op == "min")
    greatest = math.inf if is_float else (1 << 8 * ITEMSIZE[dtype] - 1) - 1
    least = -math.inf if is_float else -greatest - 1
    return least if op == "max" else greatest


class VectorProgram:
    """Nodes in order of computation, and which of them are stored where.

    dtypes are the instruction set's. A node's result is rounded to its dtype.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.outputs: list[tuple[Node, View]] = []

    # ---- leaves

    def input(self, view: View) -> Node:
        return self._node("input", view.dtype, view.shape, value=view)

    def constant(self, value: float | int, dtype: str) -> Node:
        """A scalar, known now."""
        known = float(value) if dtype in ("f32", "bf16") else int(value)
        return self._node("fill", dtype, (), value=known)

    def extent(self, value: Dim, dtype: str = "f32") -> Node:
        """A scalar, known at launch where it is symbolic."""
        if isinstance(value, int):
            return self.constant(value, dtype)
        return self._node("extent", dtype, (), value=value)

    def iota(self, shape: Sequence[Dim], dim: int, start: int, step: int, dtype: str) -> Node:
        """start + step·index along `dim`, 0 ≤ dim < rank."""
        return self._node("iota", dtype, tuple(shape), value=(start, step), dim=dim - len(shape))

    # ---- arithmetic

    def unary(self, op: str, a: Node, dtype: str | None = None) -> Node:
        return self._node("unary", dtype or a.dtype, a.shape, (a,), op)

    def cast(self, a: Node, dtype: str) -> Node:
        return a if a.dtype == dtype else self.unary("copy", a, dtype)

    def binary(self, op: str, a: Node, b: Node, dtype: str | None = None) -> Node:
        result = dtype or ("bool" if op in COMPARISONS else a.dtype)
        return self._node("binary", result, broadcast_shapes(a.shape, b.shape), (a, b), op)

    def select(self, cond: Node, a: Node, b: Node) -> Node:
        return self._node("select", a.dtype, broadcast_shapes(cond.shape, a.shape, b.shape), (cond, a, b))

    def reduce(self, op: str, a: Node, dtype: str) -> Node:
        """sum, sumsq, max, min or argmax along the last dimension; keeps it as 1."""
        if a.shape[-1] == 1:  # nothing to reduce, whatever the domain's rows are
            if op == "argmax":
                return self.broadcast(self.constant(0, dtype), a.shape)
            return self.unary("square" if op == "sumsq" else "copy", a, dtype)
        if a.shape[-1] == 0:
            return self.broadcast(self.constant(neutral(op, dtype), dtype), (*a.shape[:-1], 1))
        return self._node("reduce", dtype, (*a.shape[:-1], 1), (a,), op)

    def broadcast(self, a: Node, shape: Sequence[Dim]) -> Node:
        """Costs nothing: the reader repeats it."""
        if tuple(shape) == a.shape:
            return a
        return self._node("broadcast", a.dtype, tuple(shape), (a,))

    def spread(self, a: Node, shape: Sequence[Dim]) -> Node:
        """A copy in which what `a` repeats stands as often as the shape says."""
        return self._node("unary", a.dtype, tuple(shape), (a,), "copy", SPREAD)

    def copy(self, node: Node, inputs: Sequence[Node]) -> Node:
        """The node of another program, of these inputs."""
        return self._node(node.kind, node.dtype, node.shape, tuple(inputs), node.op, node.value, node.dim)

    # ---- results

    def output(self, node: Node, view: View) -> None:
        self.outputs.append((node, view))

    @property
    def is_row_wise(self) -> bool:
        """Whether a whole row must be in scratchpad at once."""
        return any(node.kind == "reduce" for node in self.nodes)

    @property
    def domain(self) -> tuple[Dim, ...]:
        return broadcast_shapes(*(node.shape for node in self.nodes))

    def _node(self, kind, dtype, shape, inputs=(), op="", value=None, dim=0) -> Node:
        node = Node(kind, dtype, tuple(shape), inputs, op, value, dim)
        self.nodes.append(node)
        return node


def broadcast_shapes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The common shape by numpy's rules; ValueError where extents differ and neither is 1."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for d, extent in enumerate(shape, rank - len(shape)):
            if extent != 1 and result[d] not in (1, extent):
                raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
            if extent != 1:
                result[d] = extent
    return tuple(result)
