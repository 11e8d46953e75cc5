"""A part of a graph as a program that is launched on the current stream of its device."""

import time
from collections.abc import Callable, Container, Sequence
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
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.runtime.chip import Chip
from opennpu.runtime.container import Container as ModelFile
from opennpu.runtime.signature import Signature
from opennpu.runtime.torch_device.operators import Unbindable, load_program
from torch.fx import Node
from torch_mlir import ir

_segments = Segments()


class Program(torch.nn.Module):
    """`forward(*tensors)` launches: the tensors of a part's inputs in order → its outputs.

    is_param tells of each tensor whether it is packed into a weight segment. Raises CompileError.
    """

    def __init__(self, path: Path, is_param: Sequence[bool], device: torch.device):
        super().__init__()
        self.signature, self._launch = load(path, device.index)
        assert len(self.signature.tensors("input")) == list(is_param).count(False)
        self._params = [i for i, packed in enumerate(is_param) if packed]
        self._inputs = [i for i, packed in enumerate(is_param) if not packed]
        self._device = device
        self._segment: Segment | None = None

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        inputs = [tensors[i] for i in self._inputs]
        if self.signature.weight_bytes:
            inputs.append(self._weights([tensors[i] for i in self._params]))
        return self._launch(inputs)

    def _weights(self, params: list[torch.Tensor]) -> torch.Tensor:
        if self._segment is None or not self._segment.belongs_to(params):
            self._segment = _segments.find(self.signature, params, self._device)
        self._segment.update(params)
        return self._segment.tensor


def compile_part(
    part: Part, params: Container[str], device: torch.device, chip: Chip, dump_dir: Path | None
) -> tuple[Program, PartReport]:
    """The part's program, from the compile cache where it has it. Raises CompileError."""
    start = time.perf_counter()
    tensors = [node for node in part.graph.find_nodes(op="placeholder") if not is_extent(node)]
    packed = {node for node in tensors if node.name in params and not _is_table(node)}
    module = import_graph(part.graph, packed, load_all(ir.Context()))
    key = key_of(module.operation.get_asm(enable_debug_info=True), chip.canonical_json())

    def build(path: Path) -> None:
        run = Compilation(chip, dump_dir)
        write_model(path, *run.assemble(run.lower_module(module)), weights=None)

    path = Cache().get_or_build(key, build, anew=dump_dir is not None)  # what is not built is not dumped
    program = Program(path, [node in packed for node in tensors], device)
    signature, seconds = program.signature, time.perf_counter() - start
    return program, PartReport(len(part.nodes), len(signature.report), signature.weight_bytes, seconds)


def _is_table(node: Node) -> bool:
    """True for a tensor whose rows are looked up, which needs no packing."""
    return all(user.target is torch.ops.aten.embedding.default for user in node.users)


def load(path: Path, device: int) -> tuple[Signature, Callable[[list[torch.Tensor]], list[torch.Tensor]]]:
    """The signature of a model.npu, and its launch: inputs, then the weights if it has any → outputs."""
    model = ModelFile.open(path)
    try:
        return model.signature, load_program(model, device)
    except Unbindable as error:
        raise CompileError(Problem(str(error))) from error
