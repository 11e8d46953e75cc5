"""What npu-compile makes of language models: size, memory, files, report."""

import contextlib
import io
import re
import resource
import subprocess
from pathlib import Path

import pytest
from lab import DEMO
from opennpu.compiler.container import read_program, read_signature
from opennpu.compiler.pipeline import LEVELS
from opennpu.tools import npu_compile, npu_opt
from safetensors import safe_open
from tiny_models import TINY, run_tool
from transformers import LlamaConfig

MIB = 1 << 20

LLAMA_8B = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def compile_shapes(tmp_path):
    """compile_shapes(config) compiles a Llama without weights into the directory it returns."""

    def run(config: dict, target: str = "npu1-lite") -> Path:
        config = LlamaConfig(**config, architectures=["LlamaForCausalLM"], dtype="bfloat16")
        directory = tmp_path / f"layers-{config.num_hidden_layers}"
        config.save_pretrained(directory)
        archive, program = directory / "model.pt", directory / "model.npu"
        _succeed(run_tool("npu_export", directory, "-o", archive, "--dummy-weights"))
        _succeed(run_tool("npu_compile", archive, "-o", program, "--target", target))
        return directory

    return run


def test_program_does_not_grow_with_the_layers(compile_shapes):
    texts = []
    for layers in (2, 12):
        directory = compile_shapes({**TINY, "num_hidden_layers": layers})
        signature = read_signature(directory / "model.npu")
        assert signature["kv"]["layers"] == layers
        texts.append(len(read_program(directory / "model.npu")))
    assert texts[0] == texts[1]


def test_program_of_smollm2_is_small(smollm2):
    assert len(read_program(DEMO / "model.npu")) < MIB


def test_eight_billion_parameters_without_their_memory(compile_shapes):
    """npu-export and npu-compile each stay below 4 GB of resident memory; the weights alone are 16 GB."""
    directory = compile_shapes(LLAMA_8B, "npu1")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 4e9
    signature = read_signature(directory / "model.npu")
    assert signature["chip"]["name"] == "npu1"
    (weights,) = (arg["bytes"] for arg in signature["args"] if arg["kind"] == "weights")
    assert weights >= 16e9
    assert len(read_program(directory / "model.npu")) < MIB


def test_a_model_without_weights_cannot_run(compile_shapes):
    program = compile_shapes(TINY) / "model.npu"
    with safe_open(program, "np") as file:
        assert set(file.keys()) == {"program"}
    result = run_tool("npu_run", program, "--prompt", "x", "--model-dir", DEMO / "smollm2")
    assert result.returncode == 1
    assert "compiled without weights" in result.stderr
    assert "export the model without --dummy-weights" in result.stderr


@pytest.fixture(scope="module")
def compiled(smollm2, tmp_path_factory) -> tuple[Path, str]:
    """The directory of a dump of SmolLM2 and what --report printed."""
    directory = tmp_path_factory.mktemp("dump")
    output = io.StringIO()
    arguments = [DEMO / "model.pt", "-o", directory / "model.npu", "--dump-dir", directory, "--report"]
    with contextlib.redirect_stdout(output):
        assert npu_compile.main([*map(str, arguments)]) == 0
    return directory, output.getvalue()


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_parses_again(compiled, level):
    directory, _ = compiled
    assert (directory / f"{level}.txt").read_text()
    assert npu_opt.main([str(directory / f"{level}.mlir"), "-o", str(directory / "again.mlir")]) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_emitted_level_parses_again(exported, tiny_llama, tmp_path, level):
    emitted, again = tmp_path / "emitted.mlir", tmp_path / "again.mlir"
    assert npu_compile.main([str(exported(tiny_llama)), "--emit", level, "-o", str(emitted)]) == 0
    assert npu_opt.main([str(emitted), "-o", str(again)]) == 0
    assert again.read_text().split() == emitted.read_text().split()


def test_report_has_what_is_promised(compiled):
    directory, report = compiled
    head, *rows = report.split("\n\n")[0].splitlines()
    assert re.split(r"  +", head) == ["kernel", "source", "flops", "HBM bytes", "spm", "acc", "location"]
    kernels = read_signature(directory / "model.npu")["report"]
    assert [re.split(r"  +", row)[:3] for row in rows] == [
        [kernel["kernel"], kernel["source"], kernel["flops"]] for kernel in kernels
    ]
    for stage in ("load", *LEVELS, "assemble", "weights", "total"):
        assert re.search(rf"^{stage} +\d+\.\d\d s$", report, re.MULTILINE)
    assert re.search(r"program [\d.]+ KiB, weights [\d.]+ MiB", report)


def _succeed(result: subprocess.CompletedProcess) -> None:
    assert result.returncode == 0, result.stderr
