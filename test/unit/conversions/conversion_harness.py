"""Exports plain PyTorch, converts it, runs the `npu` module and compares with PyTorch itself."""

import copy

import torch
from opennpu.compiler.frontend.archive import Archive, tensors
from opennpu.compiler.frontend.importer import import_program
from opennpu.compiler.interpreters import npu as interpreter
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.dialects import load_all
from torch_mlir import ir

PIPELINES = ("convert-torch-to-npu", "convert-torch-to-npu,npu-canonicalize")


class Program(torch.nn.Module):
    """Several functions of the same arguments as one model with one result each."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def forward(self, *arguments):
        return [function(*arguments) for function in self.functions]


def converted(model, arguments, dynamic=None, pipeline=PIPELINES[-1]):
    """(module, parameters) of the exported model."""
    program = torch.export.export(model.eval(), tuple(arguments), dynamic_shapes=dynamic, strict=False)
    context = load_all(ir.Context())
    archive = Archive(program)
    module = import_program(archive, context)
    with context, ir.Location.unknown():
        run_pipeline(module, pipeline)
    return module, tensors(archive.program)


def check(model, arguments, dynamic=None, others=(), tolerance=2e-6):
    """The module gives what PyTorch gives, as converted and after npu-canonicalize.

    `others` are arguments of other extents for the same program. The tolerance is relative
    to the largest element: sums of a few hundred f32 terms in another order.
    """
    for pipeline in PIPELINES:
        module, params = converted(copy.deepcopy(model), arguments, dynamic, pipeline)
        for given in (arguments, *others):
            with torch.no_grad():
                expected = model(*given)
            expected = list(expected) if isinstance(expected, list | tuple) else [expected]
            names = [a["npu.input"].value for a in _input_attributes(module)]
            results = interpreter.run(module, dict(zip(names, given, strict=True)), params)
            assert len(results) == len(expected)
            for i, (result, reference) in enumerate(zip(results, expected, strict=True)):
                compare(i, result, reference, tolerance)


def _input_attributes(module):
    main = next(op for op in module.body.operations if op.operation.name == "func.func")
    return [a for a in main.operation.attributes["arg_attrs"] if "npu.input" in a]


def compare(number, result, reference, tolerance):
    where = f"result {number}"
    assert result.dtype == reference.dtype, f"{where}: {result.dtype}, PyTorch has {reference.dtype}"
    assert result.shape == reference.shape, f"{where}: {result.shape}, PyTorch has {reference.shape}"
    if not reference.is_floating_point():
        assert torch.equal(result, reference), where
        return
    scale = reference[reference.isfinite()].abs().max().item() if reference.isfinite().any() else 1.0
    if reference.dtype == torch.bfloat16:
        tolerance = 2**-7  # one rounding more or less
    torch.testing.assert_close(
        result,
        reference,
        rtol=0,
        atol=tolerance * max(scale, 1e-30),
        equal_nan=True,
        msg=lambda m: f"{where}: {m}",
    )
