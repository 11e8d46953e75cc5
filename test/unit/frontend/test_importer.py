"""Archives of plain torch.export: names, symbols, locations, errors."""

import json
import zipfile

import pytest
import torch
from opennpu.compiler.frontend.archive import Archive, load_archive, save_archive, tensors
from opennpu.compiler.frontend.importer import import_program
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import symbol_ranges
from torch import nn
from torch.export import Dim
from torch_mlir import ir


class Tied(nn.Module):
    """A parameter under two names, a buffer, a constant, and two outputs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.second = nn.Linear(8, 8, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("offset", torch.ones(8))

    def forward(self, x, y):
        hidden = self.second(self.first(x)) + self.offset + torch.tensor([2.0] * 8)
        return {"sum": hidden + y, "left": hidden.view(-1, 2, 4)}


def export(model, *inputs, **options):
    return torch.export.export(model.eval(), inputs, **options)


@pytest.fixture
def tied():
    rows = Dim("rows", max=100)
    return export(Tied(), torch.ones(3, 8), torch.ones(3, 8), dynamic_shapes=[{0: rows}, {0: rows}])


def main_of(module: ir.Module) -> ir.Operation:
    return module.body.operations[0]


def argument_attributes(function, key):
    attributes = [ir.DictAttr(a) for a in ir.ArrayAttr(function.attributes["arg_attrs"])]
    return [ir.StringAttr(a[key]).value for a in attributes if key in a]


def test_arguments_are_inputs_then_params(tied):
    archive = Archive(tied)
    module = import_program(archive, ir.Context())
    main = main_of(module)
    assert module.operation.verify()
    assert argument_attributes(main, "npu.input") == ["x", "y"]
    params = argument_attributes(main, "npu.param")
    assert params == ["first.weight", "offset", "lifted_tensor_0"]
    values = tensors(archive.program)
    for name, argument in zip(params, main.regions[0].blocks[0].arguments[2:], strict=True):
        assert str(list(values[name].shape)).replace(" ", "") in str(argument.type)
    results = [ir.DictAttr(a)["npu.output"] for a in ir.ArrayAttr(main.attributes["res_attrs"])]
    assert [ir.StringAttr(name).value for name in results] == ["sum", "left"]


def test_symbols_are_named_after_the_input(tied):
    module = import_program(Archive(tied), ir.Context())
    with module.context:
        assert symbol_ranges(module) == {"x_0": (0, 100)}
        (_, dims) = (ir.DictAttr(a)["npu.dims"] for a in list(main_of(module).attributes["arg_attrs"])[:2])
        assert str(dims) == '["x_0", "8"]'


def test_recorded_extents_name_the_symbols():
    rows = Dim("rows")
    program = export(nn.Identity(), torch.ones(4), dynamic_shapes=[{0: 2 * rows}])
    module = import_program(Archive(program), ir.Context())
    assert 'npu.dims = ["2*' in str(module)
    program = export(nn.ReLU(), torch.ones(4), dynamic_shapes=[{0: rows}])
    module = import_program(Archive(program, {"dims": {"input": ["N"]}, "outputs": ["y"]}), ir.Context())
    with module.context:
        assert symbol_ranges(module) == {"N": (0, None)}
    assert 'npu.output = "y"' in str(module)


def test_locations_are_module_path_and_source_line(tied):
    module = import_program(Archive(tied), ir.Context())
    text = module.operation.get_asm(enable_debug_info=True, use_local_scope=True)
    (linear,) = [line for line in text.splitlines() if "aten.linear" in line and "second" in line]
    assert 'loc("second"("' in linear
    (add,) = [line for line in text.splitlines() if "aten.view" in line]
    assert "test_importer.py" in add


def test_archive_round_trip_keeps_names_and_sharing(tied, tmp_path):
    path = tmp_path / "model.pt"
    save_archive(path, Archive(tied, {"model": {"vocab_size": 5}}))
    archive = load_archive(path)
    assert archive.metadata == {"model": {"vocab_size": 5}}
    main = main_of(import_program(archive, ir.Context()))
    assert argument_attributes(main, "npu.param") == ["first.weight", "offset", "lifted_tensor_0"]


def test_archive_of_shapes_keeps_what_is_tied(tmp_path):
    """torch.export.save puts all meta tensors into one storage: what is tied would be lost."""
    with torch.device("meta"):
        program = export(Tied(), torch.ones(3, 8), torch.ones(3, 8))
    save_archive(tmp_path / "shapes.pt", Archive(program))
    archive = load_archive(tmp_path / "shapes.pt")
    assert all(tensor.is_meta for tensor in tensors(archive.program).values())
    main = main_of(import_program(archive, ir.Context()))
    assert argument_attributes(main, "npu.param") == ["first.weight", "offset", "lifted_tensor_0"]


def test_checks_and_identities_are_dropped():
    class Model(nn.Module):
        def forward(self, x):
            return nn.functional.dropout(x.detach(), 0.5, self.training).to(torch.float32) * 2

    text = str(import_program(Archive(export(Model(), torch.ones(3))), ir.Context()))
    assert "torch.aten.mul" in text
    for name in ("detach", "dropout", "assert"):
        assert name not in text


def test_in_place_operators_become_functional():
    class Model(nn.Module):
        def forward(self, x):
            y = x * 2
            y.add_(1)
            return y

    text = str(import_program(Archive(export(Model(), torch.ones(3))), ir.Context()))
    assert "torch.aten.add" in text
    assert "add_" not in text


def test_split_of_a_loaded_archive(tmp_path):
    class Model(nn.Module):
        def forward(self, x):
            a, b = x.split([2, 4], -1)
            return a.sum() + b.sum()

    path = tmp_path / "model.pt"
    save_archive(path, Archive(export(Model(), torch.ones(3, 6))))
    assert "torch.aten.split_with_sizes" in str(import_program(load_archive(path), ir.Context()))


def test_changed_buffer_is_an_error():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x + self.calls

    with pytest.raises(CompileError, match="changes calls in place"):
        import_program(Archive(export(Counter(), torch.ones(1))), ir.Context())


def test_not_an_archive(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(CompileError, match=r"does not exist[^$]*npu-export"):
        load_archive(path)
    path.write_text("hello")
    with pytest.raises(CompileError, match="not a zip file"):
        load_archive(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"")
    with pytest.raises(CompileError, match="holds no exported program"):
        load_archive(path)


def test_archive_of_a_newer_torch(tied, tmp_path):
    path, newer = tmp_path / "model.pt", tmp_path / "newer.pt"
    save_archive(path, Archive(tied))
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(newer, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("models/model.json"):
                data = json.dumps({**json.loads(data), "torch_version": "99.1.0"})
            target.writestr(name, data)
    with pytest.raises(CompileError, match=r"made by PyTorch 99\.1\.0, newer"):
        load_archive(newer)


def test_operators_without_conversion_are_decomposed(tmp_path):
    """In-place ones and einsum, in an archive with an extent that follows from another."""

    class Model(nn.Module):
        def forward(self, x, y):
            z = (x * 2).mul_(3)
            return torch.einsum("bi,ij->bj", z, y[1:].t()) + y.shape[0]

    rows = Dim("rows", min=1, max=8)
    program = export(Model(), torch.ones(5, 3), torch.ones(6, 3), dynamic_shapes=({0: rows}, {0: rows + 1}))
    save_archive(tmp_path / "model.pt", Archive(program))
    text = str(import_program(load_archive(tmp_path / "model.pt"), ir.Context()))
    assert "torch.aten.mul_" not in text
    assert "einsum" not in text
    assert 'npu.dims = ["x_0 + 1", "3"]' in text
