"""Regions in which a mode of PyTorch was switched."""

import pytest
import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.importer import import_program
from opennpu.compiler.frontend.regions import inline_regions
from opennpu.dialects.diagnostics import CompileError
from torch import nn
from torch_mlir import ir


class Switched(nn.Module):
    """One region in another; a result of theirs is the model's, too."""

    def __init__(self, casts: bool):
        super().__init__()
        self.casts = casts

    def forward(self, x):
        with torch.no_grad():
            scaled = x * 2
            with torch.autocast("cpu", enabled=self.casts):
                cosine = scaled.cos()
        return cosine + x, scaled


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(model.eval(), (torch.randn(3, 4),))


def test_regions_become_part_of_the_program():
    model, x = Switched(casts=False), torch.randn(3, 4)
    program = exported(model)
    assert "wrap_with" in program.graph_module.code
    assert inline_regions(program)
    assert "wrap_with" not in program.graph_module.code
    for got, expected in zip(program.graph_module(x), model(x), strict=True):
        assert torch.equal(got, expected)


def test_outputs_keep_their_order():
    module = import_program(Archive(exported(Switched(casts=False))), ir.Context())
    (main,) = module.body.operations
    *_, last = main.regions[0].blocks[0].operations
    assert [value.owner.name for value in last.operands] == ["torch.aten.add.Tensor", "torch.aten.mul.Scalar"]


def test_automatic_casts_are_an_error():
    with pytest.raises(CompileError, match=r"torch\.autocast to torch\.bfloat16"):
        import_program(Archive(exported(Switched(casts=True))), ir.Context())
