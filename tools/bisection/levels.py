"""A module at any level of IR, run on given values; and what a pass may change of the result."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.archive import tensors as values_of
from opennpu.compiler.frontend.ops import KvStore, kv_store
from opennpu.compiler.interpreters import npu as npu_interpreter
from opennpu.compiler.interpreters import tile_launch
from opennpu.compiler.interpreters.tile_memory import TileFault
from opennpu.compiler.rewriting import functions
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, NpuError
from torch import Tensor
from torch.fx import Interpreter
from torch_mlir import ir

HBM_SLACK = 1 << 26
FAULTS = (TileFault, NpuError, CompileError, ir.MLIRError, AssertionError)
"""What running a wrong program may raise."""


@dataclass(frozen=True)
class Values:
    """What a module is run on: inputs and parameters by name, symbols, pages."""

    inputs: Mapping[str, Tensor]
    params: Mapping[str, Tensor]
    symbols: Mapping[str, int] = field(default_factory=dict)
    kv: KvStore | None = None

    def fresh(self) -> "Values":
        """With pages of its own, as a run changes them."""
        if self.kv is None:
            return self
        layers = {n: tuple(x.clone() for x in layer) for n, layer in self.kv.layers.items()}
        return replace(self, kv=replace(self.kv, layers=layers))

    @property
    def bytes(self) -> int:
        pages = [x for layer in (self.kv.layers.values() if self.kv else ()) for x in layer]
        return sum(x.nbytes for x in (*self.inputs.values(), *self.params.values(), *pages))


Results = dict[str, Tensor]
"""Outputs by name, then the pages of each layer."""


def text_of(module: ir.Module) -> str:
    """With locations, so that what it is parsed into is the same module."""
    with module.context:  # verifiers need it
        return module.operation.get_asm(enable_debug_info=True)


def level_of(module: ir.Module) -> str:
    if any(op.operation.name == "npu_isa.program" for op in module.body.operations):
        return "npu_isa"
    if "npu_tile.signature" in module.operation.attributes:
        return "npu_tile"
    main = next(functions(module))
    is_torch = any(op.name.startswith("torch.") for op in main.regions[0].blocks[0].operations)
    return "torch" if is_torch else "npu"


def run(module: ir.Module, values: Values, chip: Chip) -> Results:
    """The results of a module at level npu, npu_tile or npu_isa (on the reference engine)."""
    values = values.fresh()
    given = (values.inputs, values.params)
    level = level_of(module)
    if level == "npu":
        with module.context:
            outputs = npu_interpreter.run(module, *given, values.symbols, values.kv)
    elif level == "npu_tile":
        outputs = tile_launch.run(module, *given, chip, values.symbols, values.kv)
    else:
        device = Device(chip, engine="reference", hbm_bytes=4 * values.bytes + HBM_SLACK)
        outputs = tile_launch.run_on_engine(module, *given, device, values.symbols, values.kv)
    return named(outputs, values.kv)


def run_exact(module: ir.Module, values: Values) -> Results:
    """A module at level npu in float64."""
    values = replace(values, inputs=_wide(values.inputs), params=_wide(values.params)).fresh()
    if values.kv:
        wide = {n: tuple(x.double() for x in layer) for n, layer in values.kv.layers.items()}
        values = replace(values, kv=replace(values.kv, layers=wide))
    with module.context:
        outputs = npu_interpreter.run(
            module, values.inputs, values.params, values.symbols, values.kv, exact=True
        )
    return named(outputs, values.kv)


def run_torch(archive: Archive, values: Values) -> Results:
    """The exported graph in PyTorch."""
    values, held = values.fresh(), values_of(archive.program)
    signature = archive.program.graph_signature
    arguments = [
        held[spec.target] if spec.target in held else values.inputs[spec.arg.name]
        for spec in signature.input_specs
    ]
    store = values.kv or KvStore(1, 0)
    with torch.no_grad(), kv_store(store):
        outputs = Interpreter(archive.program.graph_module).run(*arguments)
    return named(outputs, values.kv)


def named(outputs, kv: KvStore | None) -> Results:
    results = {f"output {i}": x for i, x in enumerate(outputs)}
    for number, layer in sorted(kv.layers.items() if kv else ()):
        results |= {f"{kind} of layer {number}": x for kind, x in zip(("keys", "values"), layer, strict=True)}
    return results


def _wide(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in tensors.items()}
