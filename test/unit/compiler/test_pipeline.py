"""npu-compile from archive to model.npu: the file, the levels, the report, the errors."""

import json

import pytest
import torch
from opennpu.compiler.container import ContainerError, read_program, read_signature
from opennpu.compiler.image import parse_image
from opennpu.compiler.pipeline import LEVELS, compile_model
from opennpu.runtime.chip import CHIPS, Chip
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from opennpu.tools import npu_compile, npu_opt
from safetensors import safe_open


class Perceptron(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(48, 160)
        self.down = torch.nn.Linear(160, 24)

    def forward(self, x):
        return self.down(torch.nn.functional.gelu(self.up(x)))


def export(model: torch.nn.Module, path, device: str = "cpu"):
    x = torch.randn(5, 48, device=device)
    shapes = ({0: torch.export.Dim("rows", min=1, max=300)},)
    with path.open("wb") as file:
        torch.export.save(torch.export.export(model, (x,), dynamic_shapes=shapes), file)
    return path


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Perceptron()


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("archive") / "model.pt")


def test_the_file_and_what_it_computes(model, archive, tmp_path):
    path = tmp_path / "model.npu"
    stages = []
    result = compile_model(archive, path, "npu1-lite", progress=stages.append)
    assert stages == ["load", "torch", "npu", "npu_tile", "npu_isa", "assemble", "weights"]
    with safe_open(path, "np") as file:  # the library of the format reads it
        assert set(file.keys()) == {"program", "weights"}
        assert json.loads(file.metadata()["opennpu.signature"]) == result.signature
        assert file.get_tensor("program").tobytes() == read_program(path)
    assert read_signature(path)["chip"] == Chip.load("npu1-lite").to_dict()
    image = parse_image(read_program(path))
    assert image.fingerprint == Chip.load("npu1-lite").fingerprint
    assert any(loc.startswith("up (") for loc in image.locs)
    program = Program.load(Device("npu1-lite", engine="reference", race_check=True), path)
    for rows in (1, 7, 300):
        x = torch.randn(rows, 48)
        # Both sum 160 products in f32, in another order: a few ulp of the largest partial sum.
        torch.testing.assert_close(program.run({"x": x})["output"], model(x), rtol=1e-5, atol=1e-5)


def test_every_level_can_be_read_again(archive, tmp_path):
    dump = tmp_path / "ir"
    output = tmp_path / "model.npu"
    assert npu_compile.main([str(archive), "-o", str(output), "--dump-dir", str(dump)]) == 0
    for level in LEVELS:
        assert npu_opt.main([str(dump / f"{level}.mlir"), "-o", str(tmp_path / "again.mlir")]) == 0
        assert (dump / f"{level}.txt").read_text()


@pytest.mark.parametrize(
    "level, op", [("torch", "torch.aten.linear"), ("npu", "npu.matmul"), ("npu_tile", "npu_tile.mx_mul")]
)
def test_emit(archive, capsys, level, op):
    assert npu_compile.main([str(archive), "--emit", level]) == 0
    assert op in capsys.readouterr().out


def test_report(archive, tmp_path, capsys):
    assert npu_compile.main([str(archive), "-o", str(tmp_path / "m.npu"), "--report"]) == 0
    out = capsys.readouterr().out
    for word in ("npu.matmul", "flops", "up (torch/nn/modules/linear.py", "KiB", "total", "2 kernels"):
        assert word in out


def test_weights_that_are_only_shapes(tmp_path, capsys):
    with torch.device("meta"):
        archive = export(Perceptron(), tmp_path / "dummy.pt", "meta")
    path = tmp_path / "dummy.npu"
    assert npu_compile.main([str(archive), "-o", str(path)]) == 0
    assert "left out" in capsys.readouterr().out
    with safe_open(path, "np") as file:
        assert set(file.keys()) == {"program"}


def test_errors_say_what_to_do(archive, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("no archive")
    chip = (CHIPS / "npu1-lite.toml").read_text()
    (tmp_path / "chip.toml").write_text(chip.replace("spm_kib", "spm_kb"))
    output = ["-o", str(tmp_path / "x.npu")]
    for arguments, message in [
        ([str(tmp_path / "text.pt")], "not a torch.export archive"),
        ([str(tmp_path / "nothing.pt")], "does not exist"),
        ([str(archive), "--target", "npu9"], "give the name of a chip"),
        ([str(archive), "--target", str(tmp_path / "chip.toml")], "missing key `memory.spm_kib`"),
    ]:
        assert npu_compile.main([*arguments, *output]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.npu").exists()


def test_files_that_hold_no_program(tmp_path):
    path = tmp_path / "x"
    for data in (b"", b"short", b"\xff" * 64, (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(ContainerError, match=r"expected a model\.npu"):
            read_program(path)
