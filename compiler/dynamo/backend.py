"""`torch.compile(model, backend="opennpu")`: the entry point `torch_dynamo_backends`."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from opennpu.compiler.dynamo import reports
from opennpu.compiler.dynamo.graphs import Graph
from opennpu.compiler.dynamo.reports import GraphReport
from opennpu.compiler.frontend.decompose import decompositions
from opennpu.compiler.frontend.importer import CHECKS, IDENTITIES
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.runtime.settings import settings
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.descriptors import PlainAOTInput
from torch._functorch.aot_autograd import make_boxed_func
from torch._guards import TracingContext
from torch.fx import GraphModule

DEVICE = "opennpu"


@dataclass(frozen=True)
class Options:
    """`torch.compile(options={…})`.

    strict: an operator that the chip does not compute is an error; default `OPENNPU_STRICT`.
    dump_dir: folder for every level of IR of every program, `graph0/part0/npu.mlir`, …; programs are
    then compiled even where the compile cache has them.
    """

    strict: bool
    dump_dir: Path | None = None

    @classmethod
    def of(cls, options: dict[str, Any] | None) -> "Options":
        """Raises ValueError for an option that does not exist."""
        given = {"strict": settings().strict, **(options or {})}
        known = [f.name for f in fields(cls)]
        if unknown := sorted(given.keys() - set(known)):
            raise ValueError(f"backend opennpu has no option {', '.join(unknown)}; it has {', '.join(known)}")
        return cls(bool(given["strict"]), Path(given["dump_dir"]) if given.get("dump_dir") else None)


def opennpu_backend(
    module: GraphModule, inputs: Sequence[Any], *, options: dict[str, Any] | None = None
) -> Callable:
    """Dynamo's graph as programs for the chip; see docs/torch_compile.md.

    Raises CompileError for a model that is not on the device, and in strict mode for operators that
    the chip does not compute; ValueError for unknown options.
    """
    chosen = Options.of(options)
    parameters = {i for i, value in enumerate(inputs) if isinstance(value, torch.nn.Parameter)}
    return aot_autograd(
        inference_compiler=partial(_compile, chosen, "inference", parameters),
        fw_compiler=partial(_compile, chosen, "forward", set()),
        bw_compiler=partial(_compile, chosen, "backward", set()),
        decompositions=decompositions(CHECKS | IDENTITIES),
    )(module, inputs)


def _compile(
    options: Options, kind: str, parameters: set[int], module: GraphModule, inputs: Sequence[Any]
) -> Callable:
    """A graph of AOTAutograd as a function of a list, which it empties, of the graph's inputs.

    `parameters` are the inputs of Dynamo's graph that are to be packed. Training changes them after
    every call, so there they are inputs like any other.
    """
    device = _device(module)
    if device is None:
        _check_model_moved(parameters, inputs)
        return make_boxed_func(module.forward)
    packed = _unchanged(module, parameters)
    graph = Graph(kind, module, packed, device, settings().load_chip(), options.dump_dir)
    compiled, report = graph.compile()
    reports.add(report)
    _tell(report, options.strict)
    return make_boxed_func(compiled.forward)


def _unchanged(module: GraphModule, parameters: set[int]) -> set[str]:
    """The placeholders of these inputs of Dynamo's graph but for those that a call changes."""
    if not parameters:
        return set()
    metadata = TracingContext.get().fw_metadata
    mutated = {i for i, info in enumerate(metadata.input_info) if info.mutates_data}
    held = parameters & set(metadata.static_input_indices) - mutated
    origins = {node.name: node.meta.get("desc") for node in module.graph.find_nodes(op="placeholder")}
    return {name for name, o in origins.items() if isinstance(o, PlainAOTInput) and o.idx in held}


def _device(module: GraphModule) -> torch.device | None:
    """Where the graph's tensors lie; None where none is on the chip."""
    values = (node.meta.get("val") for node in module.graph.nodes)
    devices = (v.device for v in values if isinstance(v, torch.Tensor))
    return next((device for device in devices if device.type == DEVICE), None)


def _check_model_moved(parameters: set[int], inputs: Sequence[Any]) -> None:
    """CompileError for a graph with parameters and nothing on the chip."""
    if parameters:
        what = f"torch.compile(backend={DEVICE!r}): the model is on {inputs[min(parameters)].device}"
        raise CompileError(Problem(what, remedy=f'Move it and its inputs to the chip: model.to("{DEVICE}").'))


def _tell(report: GraphReport, strict: bool) -> None:
    """An error in strict mode, else a warning, about what is not in programs."""
    eager = [operator for operator in report.eager if operator.costs]
    if not eager:
        return
    if strict:
        remedy = "Without strict mode it runs outside of the program."
        raise CompileError(*(Problem(f"operator {e.operator}: {e.reason}", e.where, remedy) for e in eager))
    names = ", ".join(dict.fromkeys(e.operator for e in eager))
    text = f"torch.compile: not in programs of the chip: {names}; opennpu.compiler.dynamo.report() says why"
    warnings.warn(text, stacklevel=2)
