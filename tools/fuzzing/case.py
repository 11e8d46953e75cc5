"""A random graph as data: what it computes in PyTorch, how it is made, how it is kept in a file."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from opennpu.runtime.chip import Chip
from opennpu.runtime.dtypes import DTYPES
from opennpu.tools.fuzzing.models import NAMES, family
from opennpu.tools.fuzzing.operators import OPERATORS, Value
from torch import Tensor

SIZES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 31, 32, 33, 48, 64, 65, 100, 127, 128, 129, 130, 257)
"""Extents: one, primes, those of strips and tiles and what is next to them."""
PART_OF_A_MODEL = 0.4  # of the graphs: with inputs and weights that fit together
LARGEST = 1 << 14  # elements of a value
TWINS = (3, 5)  # values of T for which a graph is made
TIMES = (1, 2, 5, 7, 33, 130)
"""Values of T for which it is run."""


@dataclass(frozen=True)
class Case:
    """A graph. `inputs` are (extents, dtype) with "T" for the symbol, `weights` (extents, dtype);
    a step is (operator, operands, parameters), a value's number counts inputs, weights, steps."""

    seed: int
    inputs: list
    weights: list
    steps: list
    results: list
    times: list
    chip: dict = field(default_factory=dict)
    """What differs from npu1-lite."""

    @staticmethod
    def load(path: Path) -> "Case":
        return Case(**json.loads(path.read_text()))

    def text(self) -> str:
        """As a file, one step a line."""
        rows = {key: json.dumps(value) for key, value in asdict(self).items()}
        rows["steps"] = "[\n    " + ",\n    ".join(map(json.dumps, self.steps)) + "]"
        return "{\n" + ",\n".join(f'  "{key}": {value}' for key, value in rows.items()) + "\n}\n"

    @property
    def is_dynamic(self) -> bool:
        return any("T" in extents for extents, _ in self.inputs)

    def target(self) -> Chip:
        return replace(Chip.load("npu1-lite"), **self.chip)

    def tensors(self, time: int) -> list[Tensor]:
        """The values of the inputs for this T; the same for the same seed."""
        return [
            random_tensor([time if n == "T" else n for n in extents], dtype, self.seed + 7 * i + time)
            for i, (extents, dtype) in enumerate(self.inputs)
        ]

    def parameters(self) -> list[Tensor]:
        return [
            random_tensor(extents, dtype, self.seed + 1000 + i) * scale_of(extents, dtype)
            for i, (extents, dtype) in enumerate(self.weights)
        ]

    def evaluate(self, given: Sequence[Tensor], noise: "Noise | None" = None) -> list[Tensor]:
        """The results in PyTorch; with `noise` in float64, floats disturbed as it says."""
        values = [noise.real(x) if noise else x for x in given]
        for name, operands, params in self.steps:
            chosen = OPERATORS[name]
            run = chosen.real if noise and chosen.real else chosen.run
            seen = [values[i] for i in operands]
            if noise:  # each use on its own: a product may round, and order, what it sums
                seen = [noise.disturb(x, self.dtypes[i]) for x, i in zip(seen, operands, strict=True)]
            result = run(*seen, **params)
            values.append(
                noise.disturb(result, self.dtypes[len(values)], chosen.absolute) if noise else result
            )
        return [values[i] for i in self.results]

    @property
    def dtypes(self) -> list[torch.dtype]:
        """Of every value."""
        if "dtypes" not in self.__dict__:
            values = [*self.tensors(TWINS[0]), *self.parameters()]
            for name, operands, params in self.steps:
                values.append(OPERATORS[name].run(*(values[i] for i in operands), **params))
            self.__dict__["dtypes"] = [value.dtype for value in values]
        return self.__dict__["dtypes"]


ULPS = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8}
"""The error of one operation relative to its result: functions of 4 ulp in f32, a rounding to bf16."""
ABSOLUTE = 2.0**-22


@dataclass
class Noise:
    """Computes in float64; moves every float result by up to `units` of its dtype's error and rounds it.

    Without units nothing is moved and nothing is rounded.
    """

    units: float
    seed: int

    def __post_init__(self):
        self.generator = torch.Generator().manual_seed(self.seed)

    def real(self, x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    def disturb(self, x: Tensor, dtype: torch.dtype, absolute: bool = False) -> Tensor:
        if not x.is_floating_point() or not self.units:
            return x
        draw = 2 * torch.rand(x.shape, generator=self.generator, dtype=torch.float64) - 1
        error = x.abs() * ULPS[dtype] + (ABSOLUTE if absolute else 0)
        moved = x + self.units * draw * error
        return torch.where(x.isfinite(), moved, x).to(dtype).double()


def random_tensor(shape: Sequence[int], dtype: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if DTYPES[dtype].is_floating_point:
        return torch.randn(list(shape), generator=generator).to(DTYPES[dtype])
    low, high = (0, 2) if dtype == "bool" else (-9, 10)
    return torch.randint(low, high, list(shape), generator=generator).to(DTYPES[dtype])


def scale_of(extents: Sequence[int], dtype: str) -> float:
    """A power of two that keeps products with a matrix to a few units."""
    is_matrix = DTYPES[dtype].is_floating_point and len(extents) > 1
    return 2.0 ** -round(extents[-1].bit_length() / 2) if is_matrix else 1


# ---- making one


def random_case(seed: int) -> Case:
    """A graph of a few inputs and up to 12 steps."""
    rng = random.Random(seed)
    kinds = rng.choice([["f32"], ["f32"], ["bf16"], ["f32", "bf16"], ["f32", "i32"], ["bf16", "i64", "bool"]])
    widths = rng.sample(SIZES, 3)
    times = rng.sample(TIMES, 3) if rng.random() < 0.8 else []
    inputs = [[_shape(rng, widths, bool(times)), rng.choice(kinds)] for _ in range(rng.randint(1, 4))]
    weights = [[_shape(rng, widths, False), kinds[0]] for _ in range(rng.randint(0, 3))]
    names = list(OPERATORS)
    if rng.random() < PART_OF_A_MODEL:
        fitting = family(rng, kinds[0])
        inputs, weights = inputs[:1] + fitting[0], weights[:1] + fitting[1]
        times = times or [TWINS[0]]
        names += 4 * NAMES
    chip = {"cores": rng.choice([1, 2, 2, 3, 8]), "spm_kib": rng.choice([192, 256, 512, 512])}
    chip["name"] = "fuzz"
    case = Case(
        seed, inputs, weights, [], [], times if any("T" in s for s, _ in inputs) else [TWINS[0]], chip
    )
    return _grown(case, rng, names, rng.randint(1, 12))


def _shape(rng: random.Random, widths: Sequence[int], dynamic: bool) -> list:
    shape: list = [rng.choice(widths) for _ in range(rng.choice([1, 2, 2, 2, 3, 3]))]
    if len(shape) == 3:
        shape[0] = rng.choice([1, 2, 3, 4])
    if dynamic and rng.random() < 0.8:
        shape[rng.randrange(max(len(shape) - 1, 1))] = "T"
    if not dynamic and rng.random() < 0.02:
        shape[rng.randrange(len(shape))] = 0
    if rng.random() < 0.15:
        shape[rng.randrange(len(shape))] = 1
    return shape


def _grown(case: Case, rng: random.Random, names: Sequence[str], steps: int) -> Case:
    small, large = ([*case.tensors(t), *case.parameters()] for t in TWINS)
    values = [Value(a, b) for a, b in zip(small, large, strict=True)]
    made: list = []
    for _ in range(20 * steps):
        if len(made) == steps:
            break
        name = rng.choice(names)
        again = OPERATORS[name].once and any(name == other for other, _, _ in made)
        chosen = None if again else OPERATORS[name].pick(rng, values)
        if chosen is None:
            continue
        operands, params = chosen
        try:
            results = [OPERATORS[name].run(*(getattr(values[i], twin) for i in operands), **params)
                       for twin in ("small", "large")]  # fmt: skip
        except (RuntimeError, IndexError):
            continue  # PyTorch has no such operation on these
        if results[0].dim() <= 5 and max(r.numel() for r in results) <= LARGEST and _tame(results):
            made.append([name, operands, params])
            values.append(Value(*results))
    used = {i for _, operands, _ in made for i in operands}
    first = len(case.inputs) + len(case.weights)
    results = [i for i in range(first, len(values)) if i not in used]
    return replace(case, steps=made, results=results)


def _tame(results: Sequence[Tensor]) -> bool:
    """Far from overflow, and of a dtype that the chip has."""
    known = all(x.dtype in DTYPES.values() for x in results)
    return known and all(not x.numel() or not x.is_floating_point() or x.abs().max() < 1e6 for x in results)
