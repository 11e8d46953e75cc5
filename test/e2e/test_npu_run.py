"""npu-run as a user calls it."""

import re

import faulty_driver
import numpy as np
import pytest
import torch
from image_builder import image, op
from opennpu.compiler.frontend.archive import Archive, save_archive
from opennpu.tools import npu_run
from tiny_models import run_tool
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture(params=["tiny_llama", "tiny_qwen3"])
def language_model(request, exported, tmp_path):
    """A model directory in float32, and its compiled program."""
    model_dir = request.getfixturevalue(request.param)
    result = run_tool("npu_compile", exported(model_dir), "-o", tmp_path / "model.npu")
    assert result.returncode == 0, result.stderr
    return model_dir, tmp_path / "model.npu"


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_text_is_that_of_transformers(language_model, engine, capsys):
    model_dir, program = language_model
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    prompt = tokenizer("Once upon a time", return_tensors="pt")
    expected = tokenizer.decode(
        model.generate(**prompt, max_new_tokens=10, do_sample=False)[0], skip_special_tokens=True
    )
    arguments = [program, "--model-dir", model_dir, "--prompt", "Once upon a time", "--max-new-tokens", 10]
    assert npu_run.main([*map(str, arguments), "--engine", engine]) == 0
    text, figures, _ = capsys.readouterr().out.rsplit("\n", 2)
    assert text == expected
    assert re.fullmatch(
        r"\[prefill [\d.]+ tok/s \(16 tokens\), decode [\d.]+ tok/s \(\d+ tokens\), peak memory [\d.]+ GB\]",
        figures,
    )


def test_profile(language_model, capsys):
    """Text is as without; prefill and decode have tables whose ops are the model's."""
    model_dir, program = language_model
    arguments = [program, "--model-dir", model_dir, "--prompt", "Once upon a time", "--max-new-tokens", 5]
    assert npu_run.main(list(map(str, arguments))) == 0
    expected = capsys.readouterr().out.rsplit("\n", 2)[0]
    assert npu_run.main([*map(str, arguments), "--profile"]) == 0
    text, limits, prefill, decode = capsys.readouterr().out.split("\n\n")
    assert text.startswith(expected + "\n[")
    assert re.match(r"limits: [\d.]+ GB/s .*, [\d.]+ GFLOP/s", limits)
    assert prefill.startswith("prefill: 1 launches of ") and decode.startswith("decode: 4 launches of ")
    for table in (prefill, decode):
        assert "model.layers.*.mlp.down_proj" in table
        assert table.rstrip().endswith("threads without work")
    with pytest.raises(SystemExit):
        npu_run.main([*map(str, arguments), "--profile", "--engine", "reference"])
    assert "--profile is of the native engine alone" in capsys.readouterr().err


def test_kv_pool_too_small(language_model, capsys):
    model_dir, program = language_model
    arguments = [program, "--model-dir", model_dir, "--prompt", "Once upon a time", "--kv-tokens", 16]
    assert npu_run.main(list(map(str, arguments))) == 1
    error = capsys.readouterr().err
    assert "the KV pool is too small: 1 more pages of 16 tokens are needed and 0 of its 1 are free" in error
    assert "--kv-tokens" in error


@pytest.fixture
def perceptron(tmp_path):
    """A compiled perceptron of two inputs, as (function, path)."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x, y):
            return {"sum": self.layer(x) + y, "top": x.max(-1).values}

    torch.manual_seed(0)
    model = Model().eval()
    program = torch.export.export(model, (torch.ones(3, 8), torch.ones(3, 4)))
    save_archive(tmp_path / "model.pt", Archive(program))
    result = run_tool("npu_compile", tmp_path / "model.pt", "-o", tmp_path / "model.npu")
    assert result.returncode == 0, result.stderr
    return model, tmp_path / "model.npu"


def test_tensors_in_files(perceptron, tmp_path, capsys):
    model, program = perceptron
    x, y = torch.randn(3, 8), torch.randn(3, 4)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", y.numpy())
    files = [f"y={tmp_path}/y.npy", f"{tmp_path}/x.npy"]
    outputs = [f"top={tmp_path}/top.npy", f"{tmp_path}/sum.npy"]
    assert npu_run.main([str(program), "--input", *files, "--output", *outputs]) == 0
    assert f"{tmp_path}/sum.npy: sum [3, 4] float32" in capsys.readouterr().out
    for name, value in model(x, y).items():
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / f"{name}.npy")), value)


def test_wrong_tensors(perceptron, tmp_path, capsys):
    _, program = perceptron

    def error(**arrays) -> str:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        files = [f"{name}={tmp_path}/{name}.npy" for name in arrays]
        assert npu_run.main([str(program), "--input", *files, "--output", f"{tmp_path}/sum.npy"]) == 1
        return capsys.readouterr().err

    x, y = np.zeros((3, 8), np.float32), np.zeros((3, 4), np.float32)
    assert "missing input 'y'" in error(x=x)
    assert "the program's inputs are x, y" in error(x=x, z=y)
    assert "[3, 7]" in error(x=x[:, :7], y=y)
    assert "torch.float64" in error(x=x.astype(np.float64), y=y)
    assert "not a .npy file of numbers" in error(x=np.array(["a"]), y=y)


def test_not_a_program(tmp_path, capsys):
    (tmp_path / "model.npu").write_text("hello")
    assert npu_run.main([str(tmp_path / "model.npu"), "--prompt", "x"]) == 1
    assert "not a readable safetensors file" in capsys.readouterr().err


@pytest.fixture
def faulty(perceptron, tmp_path):
    """faulty(*options) runs the perceptron on the driver that takes orders; the exit code."""
    np.save(tmp_path / "x.npy", np.ones((3, 8), np.float32))
    np.save(tmp_path / "y.npy", np.ones((3, 4), np.float32))
    files = ["--input", tmp_path / "x.npy", tmp_path / "y.npy", "--output", f"sum={tmp_path / 'sum.npy'}"]
    arguments = [perceptron[1], *files, "--driver", faulty_driver.library()]
    return lambda *options: npu_run.main([*map(str, arguments), *options])


def test_a_chip_that_fails(faulty, capsys):
    """A driver by its path; its message, and no traceback."""
    assert faulty() == 0
    for function in (
        "device_open",
        "program_load",
        "memory_alloc",
        "copy_to_device",
        "launch",
        "copy_to_host",
    ):
        faulty_driver.give(faulty_driver.order(function))
        capsys.readouterr()
        assert faulty() == 1
        assert capsys.readouterr().err == f"npu-run: error: injected failure of {function}\n"


def test_a_launch_that_never_ends(faulty, tmp_path, capsys):
    endless = tmp_path / "endless"
    body = [op("loop", rd=2, hi=1 << 60, step=1), op("end_loop")]
    endless.write_bytes(image(*body, locs=("layers.1 at model.py:9",)))
    faulty_driver.give(faulty_driver.order("launch", what=f"run {endless}"))
    assert faulty("--launch-limit", "0.1") == 1
    message = r"of layers.1 at model.py:9 on core 0: the launch ran past the limit of 100 milliseconds"
    assert re.search(message, capsys.readouterr().err)
