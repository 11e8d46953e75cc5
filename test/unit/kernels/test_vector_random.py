"""Random graphs of vector ops, fused or one by one, on chips of all sizes, against PyTorch."""

import random
from dataclasses import dataclass, replace

import pytest
import torch
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip
from tile_cases import Compiled

INPUTS = {
    "a": ["T", 3, 8],
    "b": ["T", 1, 8],
    "c": [3, 1],
    "d": [8],
    "e": ["T", 3, 1],
    "f": [1, 3, 8],
}
# All values stay within a few units, and every op has a slope of a few at most: f32 rounding
# errors of 2^-24 grow by less than a factor of 2^8 over a graph.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-5}


class Torch:
    """The steps of a graph on tensors."""

    unary = staticmethod(lambda op, x: getattr(torch, op)(x))
    binary = staticmethod(
        lambda op, a, b: getattr(torch, {"max": "maximum", "min": "minimum"}.get(op, op))(a, b)
    )
    softmax = staticmethod(lambda x: torch.softmax(x, -1))
    reduce = staticmethod(
        lambda op, x: getattr(torch, {"max": "amax", "min": "amin"}.get(op, op))(x, -1, keepdim=True)
    )
    select = staticmethod(lambda a, b: torch.where(a < b, a, b))
    swap = staticmethod(lambda x: x.transpose(-1, -2))


class Npu:
    """The same steps as `npu` ops."""

    unary = staticmethod(npu.unary)
    binary = staticmethod(npu.binary)
    softmax = staticmethod(npu.softmax)
    reduce = staticmethod(lambda op, x: npu.reduce(op, x, len(npu.dims(x)) - 1, True))
    select = staticmethod(lambda a, b: npu.select(npu.binary("lt", a, b), a, b))

    @staticmethod
    def swap(x):
        rank = len(npu.dims(x))
        return npu.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


@dataclass
class Graph:
    """Steps (kind, op, operands); each makes one value after the inputs. The last four are results."""

    steps: list[tuple]

    @staticmethod
    def random(seed: int, size: int = 14) -> "Graph":
        """Shapes are followed with T = 5."""
        rng = random.Random(seed)
        shapes = [torch.Size(5 if n == "T" else n for n in shape) for shape in INPUTS.values()]
        steps: list[tuple] = []
        while len(steps) < size:
            kind = rng.choice(["unary", "binary", "binary", "binary", "softmax", "reduce", "select", "swap"])
            x, y = (rng.randrange(max(0, len(shapes) - 7), len(shapes)) for _ in range(2))
            step = {
                "unary": (rng.choice(["tanh", "sigmoid", "neg", "abs"]), x),
                "binary": (rng.choice(["add", "sub", "mul", "max", "min"]), x, y),
                "softmax": (x,),
                "reduce": (rng.choice(["mean", "max", "min"]), x),
                "select": (x, y),
                "swap": (x,),
            }[kind]
            if kind == "swap" and (len(shapes[x]) < 2 or rng.random() < 0.7):
                continue
            try:
                shape = torch.broadcast_shapes(*(shapes[i] for i in step if isinstance(i, int)))
            except RuntimeError:
                continue
            if kind == "reduce":
                shape = (*shape[:-1], 1)
            if kind == "swap":
                shape = (*shape[:-2], shape[-1], shape[-2])
            shapes.append(torch.Size(shape))
            steps.append((kind, *step))
        return Graph(steps)

    def run(self, ops: type, values: list) -> list:
        values = list(values)
        for kind, *step in self.steps:
            operands = [values[i] if isinstance(i, int) else i for i in step]
            result = getattr(ops, kind)(*operands)
            # products and sums are brought back to a few units
            values.append(ops.unary("tanh", result) if kind == "binary" else result)
        return values[-4:]


def chip(spm_kib: int, cores: int) -> Chip:
    return replace(Chip.load("npu1-lite"), name="random", spm_kib=spm_kib, cores=cores)


@pytest.mark.parametrize("fuse", [False, True], ids=["alone", "fused"])
@pytest.mark.parametrize("seed", range(20))
def test_random_graph(seed, fuse):
    graph = Graph.random(seed)
    rng = random.Random(seed)
    target = chip(spm_kib=rng.choice([1, 2, 64, 512]), cores=rng.choice([1, 2, 3, 8]))
    specs = {name: (shape, "f32") for name, shape in INPUTS.items()}
    try:
        kernel = Compiled(
            lambda **inputs: graph.run(Npu, list(inputs.values())), specs, {"T": (0, 64)}, target, fuse
        )
    except CompileError as error:
        assert target.spm_kib <= 2, error  # sixteen buffers of a fused group of rows may not fit
        return
    for tokens in (5, 0, 23):
        torch.manual_seed(tokens)
        inputs = {
            name: torch.randn([tokens if n == "T" else n for n in shape]).clamp(-2, 2)
            for name, shape in INPUTS.items()
        }
        expected = graph.run(Torch, list(inputs.values()))
        for actual, y in zip(kernel({"T": tokens}, **inputs), expected, strict=True):
            torch.testing.assert_close(actual, y, **TOLERANCE)
