"""Random graphs of vector ops over several domains, between views and products."""

import random

import npu_graphs as graphs
import torch
from opennpu.dialects import npu
from torch_mlir import ir

COLUMNS = 8
SHAPES = {
    "rows": ["T", COLUMNS],
    "more_rows": ["T", COLUMNS],
    "column": ["T", 1],
    "vector": [COLUMNS],
    "row": [1, COLUMNS],
    "planes": [3, "T", COLUMNS],
}
SQUARE = [COLUMNS, COLUMNS]
"""The weight of the products."""


def random_inputs(tokens: int = 5) -> dict[str, torch.Tensor]:
    shapes = {**SHAPES, "square": SQUARE}
    return {name: torch.randn([tokens if n == "T" else n for n in shape]) for name, shape in shapes.items()}


def random_graph(seed: int, size: int = 24) -> ir.Module:
    """`size` steps, each on recent values; the results are the values that nothing uses."""
    return _Generator(seed).build(size)


class _Generator:
    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.function = graphs.Function()
        self.values = [self.function.input(name, shape, "f32") for name, shape in SHAPES.items()]
        self.square = self.function.input("square", SQUARE, "f32")
        self.scale = self.values[list(SHAPES).index("vector")]

    def build(self, size: int) -> ir.Module:
        steps = [self.combine, self.combine, self.element, self.along_row, self.widen, self.outside]
        with ir.InsertionPoint(self.function.end):
            for _ in range(size):
                self.values.append(self.random.choice(steps)())
        return self.function.finish(*(v for v in self.values[len(SHAPES) :] if not list(v.uses)))

    def pick(self) -> ir.Value:
        return self.random.choice(self.values[-8:] if self.random.random() < 0.8 else self.values)

    def combine(self) -> ir.Value:
        a, b = self.pick(), self.pick()
        try:
            return npu.binary(self.random.choice(["add", "sub", "mul", "max"]), a, b)
        except npu.Invalid:
            return npu.unary("sigmoid", a)

    def element(self) -> ir.Value:
        return npu.unary("tanh", self.pick())

    def along_row(self) -> ir.Value:
        x = self.pick()
        if npu.dims(x)[-1:] != (COLUMNS,):
            return npu.unary("neg", x)
        kind = self.random.choice(["softmax", "rms_norm", "sum", "max", "mean", "dropped"])
        if kind == "softmax":
            return npu.softmax(x)
        if kind == "rms_norm":
            return npu.rms_norm(x, npu.binary("add", self.scale, npu.constant(1.0, [], "f32")), 1e-5)
        dropped = kind == "dropped"
        return npu.reduce("sum" if dropped else kind, x, len(npu.dims(x)) - 1, keepdim=not dropped)

    def widen(self) -> ir.Value:
        x = self.pick()
        shape = npu.dims(x)
        target = [3, *shape] if len(shape) == 2 else shape
        return npu.binary("add", npu.broadcast_to(x, target), npu.constant(0.5, target, "f32"))

    def outside(self) -> ir.Value:
        """Something that no vector kernel holds."""
        x = self.pick()
        shape = npu.dims(x)
        if len(shape) != 2 or shape[-1] != COLUMNS:
            return npu.reshape(x, [1, *shape])
        return self.random.choice([lambda: npu.matmul(x, self.square), lambda: npu.transpose(x, [1, 0])])()
