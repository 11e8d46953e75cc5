"""Small `npu` modules, run as tile code in numpy, with PyTorch tensors in and out."""

import json
from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np
import torch
from opennpu.compiler.passes.convert_npu_to_tile import run as convert_npu_to_tile
from opennpu.dialects import npu
from opennpu.dialects.symbols import Sym, set_symbol_ranges, tensor_type
from opennpu.runtime.chip import Chip
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


class Compiled:
    """A module lowered to tiles for a chip; called with tensors by name and values of the symbols."""

    def __init__(
        self,
        build: Callable[..., ir.Value | Sequence[ir.Value]],
        inputs: Mapping[str, Spec],
        ranges: Mapping[str, tuple[int, int | None]] | None = None,
        chip: str | Chip = "npu1-lite",
    ):
        """`build` gets the inputs by name and returns the results; it uses the builders of `npu`."""
        self.chip = Chip.load(chip)
        self.context = ir.Context()
        with self.context, ir.Location.unknown():
            npu.load()
            self.module = ir.Module.parse("func.func @main() { return }")
            set_symbol_ranges(self.module, ranges or {})
            _fill(self.module, build, inputs)
            self.module.operation.verify()
            convert_npu_to_tile(self.module, chip=self.chip)
            self.module.operation.verify()
        signature = self.module.operation.attributes["npu_tile.signature"]
        self.signature = json.loads(ir.StringAttr(signature).value)
        self.machine: TileMachine | None = None

    def __call__(
        self, symbols: Mapping[str, int] | None = None, **inputs: torch.Tensor
    ) -> list[torch.Tensor]:
        arrays = {name: _to_numpy(x) for name, x in inputs.items()}
        with self.context:
            outputs, self.machine = run_module(
                self.module, self.signature, arrays, symbols or {}, self.chip.cores
            )
        return [_to_torch(y) for y in outputs]


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
