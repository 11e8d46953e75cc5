"""Baseline files: the one in the repository, and those that are none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from opennpu.tools import baseline
from opennpu.tools.baseline import command, files
from opennpu.tools.baseline.causal import Causal
from opennpu.tools.baseline.work import Weights

OURS = Path(__file__).parent / "data" / "smollm2_cpu.json"


def test_the_one_in_the_repository_holds(tmp_path):
    recording = files.load(OURS)
    assert recording["runs"].keys() == {"fp32", "bf16"}
    files.save(tmp_path / "again.json", recording)
    assert files.load(tmp_path / "again.json") == recording


def change(path: str, value):
    """Sets what stands at a path such as `runs.fp32.perplexity`; deletes it for None."""

    def apply(data: dict) -> None:
        *way, last = path.split(".")
        for key in way:
            data = data[int(key)] if isinstance(data, list) else data[key]
        if value is None:
            del data[last]
        else:
            data[int(last) if isinstance(data, list) else last] = value

    return apply


WRONG = [
    (change("version", 1), "version 1 of the format, where 2 is read: record it again"),
    (change("version", 3), "version 3 of the format, where 2 is read: use a newer OpenNPU"),
    (change("format", "other"), "`format` is not 'opennpu-baseline'"),
    (change("limits", None), "'limits' is a required property"),
    (change("runs.fp32.perplexity", "4"), "runs.fp32.perplexity: '4' is not of type 'number'"),
    (change("runs.fp32.perplexity", -1), "runs.fp32.perplexity"),
    (change("runs.fp32.logits.ids.0", [-5]), "runs.fp32.logits.ids[0][0]: -5 is less than the minimum"),
    (change("runs.bf16.logits.next", [-1.0]), "runs.bf16.logits.next has 1 entries, not 255"),
    (change("runs.bf16.generated", []), "runs.bf16.generated has not one entry for each prompt"),
    (change("runs.fp32.generated.0.ids", []), "runs.fp32.generated[0].ids: [] should be non-empty"),
    (change("prompts.0.tokens", []), "prompts[0].tokens: [] should be non-empty"),
    (change("runs.fp32.speed.decode.bytes", None), "'bytes' is a required property"),
    (change("runs.fp16", {}), "fp16"),
    (change("text.tokens", [1]), "text.tokens"),
    (change("hardware.threads", 0), "hardware.threads"),
]


@pytest.mark.parametrize(("apply", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_is_wrong_is_told(apply, message, tmp_path):
    data = json.loads(OURS.read_text())
    apply(data)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(data))
    with pytest.raises(files.BaselineError) as error:
        files.load(path)
    assert message in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"format": NaN}', "\0", "{}"])
def test_no_baseline_at_all(text, tmp_path):
    path = tmp_path / "no.json"
    path.write_text(text)
    with pytest.raises(files.BaselineError):
        files.load(path)


def test_recording_needs_neither_compiler_nor_runtime(tiny_llama, tmp_path):
    """The folder alone, beside an interpreter that refuses OpenNPU's compiler and MLIR."""
    shutil.copytree(Path(baseline.__file__).parent, tmp_path / "baseline")
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith(('opennpu.compiler', 'opennpu.tools', 'torch_mlir')):\n"
        "            raise AssertionError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from baseline.command import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "record", str(tiny_llama), "-o", "out.json", "--dtype", "fp32"]
    options = ["--tokens", "16", "--generate", "2", "--device", "cpu"]
    result = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert files.load(tmp_path / "out.json")["runs"].keys() == {"fp32"}


def test_where_a_file_cannot_be(tiny_llama, tmp_path, capsys):
    for output in (tmp_path, tmp_path / "missing" / "out.json"):
        assert command.main(["record", str(tiny_llama), "-o", str(output)]) == 1
        assert "npu-baseline: error: " in capsys.readouterr().err


# ---- the work of a launch


def multiplied(model, rows: int) -> tuple[int, int]:
    """(numbers of linear layers and norms but the output matrix, of the output matrix), from the
    configuration."""
    c = model.config
    attention = c.hidden_size * c.head_dim * 2 * (c.num_attention_heads + c.num_key_value_heads)
    norms = (2 * c.num_hidden_layers + 1) * c.hidden_size
    return c.num_hidden_layers * (attention + rows * 3 * c.hidden_size) + norms, c.vocab_size * c.hidden_size


@pytest.mark.parametrize("name", ["llama", "llama-tied"])
def test_the_output_matrix_is_read_once_and_multiplied_with_one_row(tiny_model, name):
    model = Causal(tiny_model("llama"), torch.float32).model
    if name == "llama-tied":
        model.lm_head.weight = model.model.embed_tokens.weight
    body, head = multiplied(model, model.config.intermediate_size)
    work = Weights.of(model).work(10, 4)
    assert work == {"flop": 2 * (10 * body + head), "bytes": 4 * (body + head)}


def test_a_token_meets_its_experts_only(tiny_model):
    """Of 4 experts a token chooses 2; of two tokens, that choose evenly, 3 distinct ones in the mean."""
    model = Causal(tiny_model("mixtral"), torch.float32).model
    rest, head = multiplied(model, 0)
    rest += model.config.num_hidden_layers * 4 * model.config.hidden_size  # routers
    expert = model.config.num_hidden_layers * 3 * model.config.hidden_size * model.config.intermediate_size
    weights = Weights.of(model)
    assert weights.work(1, 2) == {
        "flop": 2 * (rest + 2 * expert + head),
        "bytes": 2 * (rest + 2 * expert + head),
    }
    assert weights.work(2, 2)["bytes"] == 2 * (rest + 3 * expert + head)
    assert weights.work(10_000, 2)["bytes"] == 2 * (rest + 4 * expert + head)
