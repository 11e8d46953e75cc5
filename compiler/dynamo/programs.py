"""A part of a graph as a program that is launched on the current stream of its device."""

import time
from collections.abc import Container, Sequence
from pathlib import Path

import torch
from opennpu.compiler.cache import Cache, key_of
from opennpu.compiler.container import write_model
from opennpu.compiler.dynamo.partition import Part
from opennpu.compiler.dynamo.reports import PartReport
from opennpu.compiler.dynamo.support import is_extent
from opennpu.compiler.dynamo.weights import Segment, Segments
from opennpu.compiler.frontend.graph import import_graph
from opennpu.compiler.pipeline import Compilation
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from opennpu.runtime.container import Container as ModelFile
from opennpu.runtime.torch_device.operators import load_program
from torch_mlir import ir

_segments = Segments()


class Program(torch.nn.Module):
    """`forward(*tensors)` launches: the tensors of the part's inputs in order → its outputs."""

    def __init__(self, path: Path, names: Sequence[str], params: Container[str], device: torch.device):
        super().__init__()
        self.model = ModelFile.open(path)
        self._launch = load_program(self.model, device.index)
        self._device = device
        self._params = [i for i, name in enumerate(names) if name in params]
        self._param_names = [names[i] for i in self._params]
        self._inputs = [names.index(name) for name in self.model.signature.tensors("input")]
        self._segment: Segment | None = None

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        inputs = [tensors[i] for i in self._inputs]
        if self.model.signature.weight_bytes:
            inputs.append(self._weights([tensors[i] for i in self._params]))
        return self._launch(inputs)

    def _weights(self, params: list[torch.Tensor]) -> torch.Tensor:
        if self._segment is None or not self._segment.belongs_to(params):
            self._segment = _segments.find(self.model.signature, self._param_names, params)
        self._segment.update(params)
        return self._segment.tensor


def compile_part(
    part: Part, params: Container[str], device: torch.device, chip: Chip, dump_dir: Path | None
) -> tuple[Program, PartReport]:
    """The part's program, from the compile cache where it has it. Raises CompileError."""
    start = time.perf_counter()
    module = import_graph(part.graph, params, load_all(ir.Context()))
    key = key_of(module.operation.get_asm(enable_debug_info=True), chip.canonical_json())

    def build(path: Path) -> None:
        run = Compilation(chip, dump_dir)
        write_model(path, *run.assemble(run.lower_module(module)), weights=None)

    names = [node.name for node in part.inputs if not is_extent(node)]
    program = Program(Cache().get_or_build(key, build), names, params, device)
    signature = program.model.signature
    seconds = time.perf_counter() - start
    return program, PartReport(len(part.nodes), len(signature.report), signature.weight_bytes, seconds)
