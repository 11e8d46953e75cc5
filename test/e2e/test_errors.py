"""What goes wrong at the commands: each error says what, where and what to do, without a traceback."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from opennpu.runtime.chip import CHIPS
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.program import Program
from opennpu.tools import npu_compile, npu_export, npu_run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from small_models import Compiled, Mlp
from tiny_models import run_tool
from torch import nn


@pytest.fixture
def fails(capsys):
    """fails(tool, *arguments) is what the command says on its way out."""

    def run(tool, *arguments: object) -> str:
        try:
            code = tool.main([str(a) for a in arguments])
        except SystemExit as exit_:  # how argparse ends
            code = exit_.code
        error = capsys.readouterr().err
        assert code not in (0, None)
        assert "Traceback" not in error
        return error

    return run


# ---- npu-compile: the archive


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory) -> Path:
    """A directory with model.pt and model.npu: x [batch ≤ 8, 40] → output [batch, 10]."""
    directory = tmp_path_factory.mktemp("perceptron")
    shapes = ({0: torch.export.Dim("batch", min=1, max=8)},)
    Compiled(Mlp().eval(), (torch.randn(3, 40),), shapes, directory)
    return directory


@pytest.mark.parametrize(
    "content, what", [(None, "does not exist"), (b"hello", "is not a torch.export archive: not a zip file")]
)
def test_not_an_archive(tmp_path, fails, content, what):
    path = tmp_path / "model.pt"
    if content:
        path.write_bytes(content)
    error = fails(npu_compile, path, "-o", tmp_path / "model.npu")
    assert f"{path} {what}" in error
    assert "npu-export" in error


def test_weights_instead_of_a_program(tmp_path, fails):
    torch.save({"weight": torch.ones(3)}, tmp_path / "model.pt")
    error = fails(npu_compile, tmp_path / "model.pt", "-o", tmp_path / "model.npu")
    assert "it holds no exported program" in error
    assert "torch.export.save" in error


def test_truncated_archive(perceptron, tmp_path, fails):
    content = (perceptron / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: len(content) // 2])
    assert "is not a torch.export archive" in fails(npu_compile, tmp_path / "model.pt", "-o", tmp_path / "x")


@pytest.mark.parametrize("part, content", [("/models/", b"{"), ("/weights/", None)])
def test_damaged_archive(perceptron, tmp_path, fails, part, content):
    """The program's description is no JSON; the weights are gone."""
    with (
        zipfile.ZipFile(perceptron / "model.pt") as good,
        zipfile.ZipFile(tmp_path / "model.pt", "w") as bad,
    ):
        for name in good.namelist():
            if part not in name:
                bad.writestr(name, good.read(name))
            elif content is not None:
                bad.writestr(name, content)
    error = fails(npu_compile, tmp_path / "model.pt", "-o", tmp_path / "model.npu")
    assert f"{tmp_path / 'model.pt'} cannot be loaded" in error
    assert torch.__version__ in error


class Inner(nn.Module):
    def forward(self, x):
        return torch.sort(x.kthvalue(2, 0, keepdim=True).values).values + 1


class Unsupported(nn.Module):
    """Three operators without a conversion, the later two behind the first."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Linear(4, 4), Inner()

    def forward(self, x):
        return self.inner(self.stem(x)).mode(-1).values


def test_unsupported_operators_are_all_named(tmp_path, fails):
    torch.export.save(torch.export.export(Unsupported(), (torch.ones(3, 4),)), tmp_path / "model.pt")
    error = fails(npu_compile, tmp_path / "model.pt", "-o", tmp_path / "model.npu")
    line = Inner.forward.__code__.co_firstlineno + 1
    for name, place in {
        "aten.kthvalue": f"inner ({__file__}:{line})",
        "aten.sort": f"inner ({__file__}:{line})",
        "aten.mode": f"{__file__}:{Unsupported.forward.__code__.co_firstlineno + 1}",
    }.items():
        assert f"operator {name}: there is no conversion for it\n    at {place}\n    Rewrite" in error
    assert error.count("operator ") == 3
    assert not (tmp_path / "model.npu").exists()


def test_output_directory_does_not_exist(perceptron, tmp_path, fails):
    missing = tmp_path / "missing"
    assert str(missing) in fails(npu_compile, perceptron / "model.pt", "-o", missing / "model.npu")
    assert str(missing) in fails(npu_export, tmp_path, "-o", missing / "model.pt")


# ---- npu-compile: the chip


def compile_for(chip: str, perceptron: Path, tmp_path: Path) -> list:
    """Arguments of npu-compile for a chip file of this content."""
    (tmp_path / "chip.toml").write_text(chip)
    archive, output = perceptron / "model.pt", tmp_path / "model.npu"
    return [npu_compile, archive, "-o", output, "--target", tmp_path / "chip.toml"]


LITE = (CHIPS / "npu1-lite.toml").read_text()


@pytest.mark.parametrize(
    "chip, what",
    [
        (LITE.replace("mx_k", "# mx_k"), "missing key `matrix.mx_k`"),
        (LITE.replace("mx_k", "mx_q"), "unknown key `matrix.mx_q`; missing key `matrix.mx_k`"),
        (LITE.replace("spm_kib = 512", 'spm_kib = "512"'), "`memory.spm_kib` must be an integer"),
        ("cores", "not TOML"),
    ],
)
def test_chip_file(perceptron, tmp_path, fails, chip, what):
    error = fails(*compile_for(chip, perceptron, tmp_path))
    assert f"{tmp_path / 'chip.toml'}: " in error
    assert what in error


def test_unknown_chip(perceptron, tmp_path, fails):
    error = fails(npu_compile, perceptron / "model.pt", "-o", tmp_path / "x", "--target", "npu0")
    assert "no chip 'npu0'" in error
    assert "npu1, npu1-lite" in error


def test_scratchpad_too_small(perceptron, tmp_path, fails):
    error = fails(*compile_for(LITE.replace("spm_kib = 512", "spm_kib = 2"), perceptron, tmp_path))
    assert "scratchpad" in error
    assert "small_models.py" in error


def test_program_for_another_chip(perceptron):
    with pytest.raises(NpuError, match=r"compiled for the chip with fingerprint .* this device is npu1 with"):
        Program.load(Device("npu1", hbm_bytes=1 << 20), perceptron / "model.npu")


# ---- npu-run: the inputs


@pytest.mark.parametrize(
    "array, what",
    [
        (np.zeros((2, 41), np.float32), "the shape [2, 41], where 40 was expected for 41"),
        (np.zeros((2, 40, 1), np.float32), "the shape [2, 40, 1]"),
        (np.zeros((2, 40), np.float64), "the tensor given is torch.float64"),
        (np.zeros((2, 40), np.int64), "the tensor given is torch.int64"),
    ],
)
def test_wrong_tensor(perceptron, tmp_path, fails, array, what):
    np.save(tmp_path / "x.npy", array)
    error = fails(npu_run, perceptron / "model.npu", "--input", tmp_path / "x.npy", "--output", "y.npy")
    assert "input 'x' (f32 [x_0, 40])" in error
    assert what in error


@pytest.mark.parametrize("batch", [0, 9])
def test_symbol_out_of_range(perceptron, tmp_path, fails, batch):
    np.save(tmp_path / "x.npy", np.zeros((batch, 40), np.float32))
    error = fails(npu_run, perceptron / "model.npu", "--input", tmp_path / "x.npy", "--output", "y.npy")
    assert f"x_0 is {batch} by the sizes of the inputs; the program was compiled for from 1 to 8" in error


def test_results_that_go_nowhere(perceptron, tmp_path, fails):
    np.save(tmp_path / "x.npy", np.zeros((2, 40), np.float32))
    assert "--output" in fails(npu_run, perceptron / "model.npu", "--input", tmp_path / "x.npy")


def test_text_from_what_is_no_language_model(perceptron, tmp_path, tiny_llama, fails):
    error = fails(npu_run, perceptron / "model.npu", "--prompt", "Hi", "--model-dir", tiny_llama)
    assert "not a language model: use --input and --output" in error
    assert "--model-dir" in fails(npu_run, perceptron / "model.npu", "--prompt", "Hi")


# ---- npu-run: the file


@pytest.mark.parametrize("size", [0, 5, 1000, -64])
def test_truncated_program(perceptron, tmp_path, fails, size):
    (tmp_path / "model.npu").write_bytes((perceptron / "model.npu").read_bytes()[:size])
    error = fails(npu_run, tmp_path / "model.npu", "--input", "x.npy")
    assert f"{tmp_path / 'model.npu'}: not a readable safetensors file" in error
    assert "npu-compile" in error


def damaged(good: Path, bad: Path, tensors=lambda t: t, metadata=lambda m: m, signature=lambda s: s) -> Path:
    """A copy of a model.npu with one of its parts changed."""
    with safe_open(good, framework="np") as file:
        kept = metadata(file.metadata())
    if "opennpu.signature" in kept and kept["opennpu.signature"].endswith("}"):
        kept["opennpu.signature"] = json.dumps(signature(json.loads(kept["opennpu.signature"])))
    save_file(tensors(load_file(good)), bad, metadata=kept)
    return bad


def without(key: str):
    return lambda d: {k: v for k, v in d.items() if k != key}


@pytest.mark.parametrize(
    "damage, what",
    [
        ({"metadata": lambda m: {}}, "opennpu.format is None"),
        ({"metadata": lambda m: {**m, "opennpu.format": "2"}}, "no compiled model of format 1"),
        ({"metadata": lambda m: {**m, "opennpu.signature": "{"}}, "the signature is not JSON"),
        ({"signature": without("args")}, "signature.args is missing"),
        ({"signature": without("symbols")}, "uses x_0, which `symbols` does not have"),
        ({"signature": lambda s: {**s, "chip": without("cores")(s["chip"])}}, "missing key `cores`"),
        ({"signature": lambda s: {**s, "args": s["args"][:-1]}}, "the program takes 5 arguments, 4 were"),
        ({"tensors": without("program")}, "the tensor `program` is missing"),
        ({"tensors": without("weights")}, "compiled without weights"),
        ({"tensors": lambda t: {**t, "weights": t["weights"][:-64]}}, "the signature says"),
        ({"tensors": lambda t: {**t, "program": t["program"][8:]}}, "does not start with ONPUPROG"),
        ({"tensors": lambda t: {**t, "program": t["program"][:-64]}}, "the image ends after"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_damaged_program(perceptron, tmp_path, fails, damage, what):
    np.save(tmp_path / "x.npy", np.zeros((2, 40), np.float32))
    path = damaged(perceptron / "model.npu", tmp_path / "model.npu", **damage)
    assert what in fails(npu_run, path, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy")


# ---- npu-export


def test_export_from_a_broken_directory(tiny_llama, tmp_path, fails):
    """What needs no process of its own; test_export.py has the missing weights."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    (broken / "config.json").write_text("{")
    assert f"{broken}/config.json is not JSON" in fails(npu_export, broken, "-o", tmp_path / "model.pt")
    (broken / "config.json").unlink()
    assert f"{broken} has no config.json" in fails(npu_export, broken, "-o", tmp_path / "model.pt")


def test_export_with_a_bias_that_sglang_has_no_place_for(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.bias"
    weights[name] = np.ones(64, np.float32)
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    result = run_tool("npu_export", tmp_path / "model", "-o", tmp_path / "model.pt")
    assert result.returncode == 1
    assert f"SGLang's LlamaForCausalLM would ignore a bias among {name}\n" in result.stderr
    assert "Traceback" not in result.stderr
