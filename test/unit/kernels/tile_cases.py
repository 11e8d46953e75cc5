"""Small `npu` modules, run as tile code in the interpreter, with PyTorch tensors in and out."""

from collections.abc import Callable, Mapping, Sequence

import torch
from chip_cases import DTYPE, Case, Spec, npu_module
from opennpu.compiler.assembler import signature_of
from opennpu.compiler.interpreters.tile import Machine
from opennpu.compiler.interpreters.tile_launch import Launch
from opennpu.compiler.passes import registry
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from torch_mlir import ir

Build = Callable[..., ir.Value | Sequence[ir.Value]]
"""Gets the inputs by name and returns the results; uses the builders of `npu`."""


class Compiled:
    """A module lowered to tiles for a chip; called with tensors by name and values of the symbols."""

    def __init__(
        self,
        build: Build,
        inputs: Mapping[str, Spec],
        ranges: Mapping[str, tuple[int, int | None]] | None = None,
        chip: str | Chip = "npu1-lite",
        fuse: bool = False,
    ):
        self.chip = Chip.load(chip)
        self.context = load_all(ir.Context())
        with self.context, ir.Location.unknown():
            self.module = npu_module(_listed(build), inputs, {}, ranges or {})
            if fuse:
                registry.find("npu-fuse-elementwise").run(self.module)
            registry.find("convert-npu-to-tile").run(self.module, chip=self.chip)
            self.module.operation.verify()
            self.signature = signature_of(self.module)
        self.machine: Machine | None = None

    def __call__(self, symbols: Mapping[str, int] | None = None, **inputs: torch.Tensor):
        """The outputs in order."""
        with self.context:
            launch = Launch(self.module, self.chip, inputs, {}, symbols)
            self.machine = launch.machine()
            self.machine.run(self.module)
        return launch.finish()


class OnChip:
    """The same, compiled to instructions and run by an engine under the race checker."""

    def __init__(self, build: Build, inputs, ranges=None, chip="npu1-lite", engine="reference"):
        self.case = Case(_listed(build), inputs, None, ranges, chip, engine=engine)

    def __call__(self, symbols=None, **inputs):
        return self.case(**inputs)


def _listed(build: Build) -> Callable[..., list[ir.Value]]:
    def results(**inputs):
        made = build(**inputs)
        return [made] if isinstance(made, ir.Value) else list(made)

    return results


def random(shape: Sequence[int], element: str, seed: int = 0) -> torch.Tensor:
    """Normal numbers for floats, -9 … 9 for integers."""
    generator = torch.Generator().manual_seed(seed)
    dtype = DTYPE[element]
    if element in ("f32", "bf16"):
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    low, high = (0, 2) if element == "i1" else (-9, 10)
    return torch.randint(low, high, tuple(shape), generator=generator).to(dtype)
