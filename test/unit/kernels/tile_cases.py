"""Small `npu` modules, run as tile code in numpy, with PyTorch tensors in and out."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np
import torch
from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.pass_manager import Stage, run_pipeline
from opennpu.compiler.passes import registry
from opennpu.compiler.pipeline import PIPELINE
from opennpu.dialects import load_all, npu
from opennpu.dialects.symbols import Sym, set_symbol_ranges, tensor_type
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from opennpu.runtime.signature import Signature
from tile_machine import TileMachine, run_module
from torch_mlir import ir

Spec = tuple[Sequence[int | str], str]  # extents (a text is a polynomial in symbols), dtype

ELEMENTS = {
    torch.float32: "f32",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.bool: "i1",
}


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
    ):
        self.chip = Chip.load(chip)
        self.context = load_all(ir.Context())
        with self.context, ir.Location.unknown():
            self.module = npu_module(build, inputs, ranges or {})
            run_pipeline(self.module, [stage(TO_TILES, self.chip)])
            self.signature = signature_of(self.module)
        self.machine: TileMachine | None = None

    def __call__(self, symbols: Mapping[str, int] | None = None, **inputs: torch.Tensor):
        """The outputs in order."""
        arrays = {name: _to_numpy(x) for name, x in inputs.items()}
        with self.context:
            outputs, self.machine = run_module(
                self.module, self.signature, arrays, symbols or {}, self.chip.cores
            )
        return [_to_torch(y) for y in outputs]


class OnChip(Compiled):
    """The same, compiled to instructions and run by the reference engine under the race checker."""

    def __init__(self, build, inputs, ranges=None, chip="npu1-lite"):
        super().__init__(build, inputs, ranges, chip)
        with self.context, ir.Location.unknown():
            passes = [p for level in ("npu_tile", "npu_isa") for p in PIPELINE[level] if p != TO_TILES]
            run_pipeline(self.module, [stage(name, self.chip) for name in passes])
            image = assemble(self.module, self.chip)
        signature = Signature.from_json(json.dumps({"chip": self.chip.to_dict(), **self.signature}))
        self.program = Program(Device(self.chip, engine="reference", race_check=True), image, signature)

    def __call__(self, symbols=None, **inputs):
        return list(self.program.run(inputs).values())


TO_TILES = "convert-npu-to-tile"


def stage(name: str, chip: Chip) -> Stage:
    own = registry.find(name)
    takes_chip = own is not None and "chip" in inspect.signature(own.run).parameters
    return Stage(name, own, {"chip": chip} if takes_chip else {})


def npu_module(build: Build, inputs: Mapping[str, Spec], ranges) -> ir.Module:
    """A module whose `@main` is what `build` makes."""
    module = ir.Module.parse("func.func @main() { return }")
    set_symbol_ranges(module, ranges)
    _fill(module, build, inputs)
    module.operation.verify()
    return module


def _fill(module: ir.Module, build, inputs: Mapping[str, Spec]) -> None:
    function = module.body.operations[0].operation
    block = function.regions[0].blocks[0]
    end = block.operations[0].operation
    types = [tensor_type([Sym.of(n) for n in shape], npu.element_type(e)) for shape, e in inputs.values()]
    arguments = [block.add_argument(t, ir.Location.unknown()) for t in types]
    with ir.InsertionPoint(end):
        results = build(**dict(zip(inputs, arguments, strict=True)))
        results = [results] if isinstance(results, ir.Value) else list(results)
        ir.Operation.create("func.return", operands=results)
    end.erase()
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(types, [r.type for r in results])
    )
    names = [ir.DictAttr.get({"npu.input": ir.StringAttr.get(name)}) for name in inputs]
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(names)


def random(shape: Sequence[int], element: str, seed: int = 0) -> torch.Tensor:
    """Normal numbers for floats, -9 … 9 for integers."""
    generator = torch.Generator().manual_seed(seed)
    dtype = {name: dtype for dtype, name in ELEMENTS.items()}[element]
    if element in ("f32", "bf16"):
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    low, high = (0, 2) if element == "i1" else (-9, 10)
    return torch.randint(low, high, tuple(shape), generator=generator).to(dtype)


def _to_numpy(x: torch.Tensor) -> np.ndarray:
    if x.dtype == torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.contiguous().numpy()


def _to_torch(x: np.ndarray) -> torch.Tensor:
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(x.copy())
