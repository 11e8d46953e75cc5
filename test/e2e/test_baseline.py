"""Baseline files: the one in the repository, and those that are none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from opennpu.tools import baseline
from opennpu.tools.baseline import files

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
    (change("version", 0), "version 0 of the format, where 1 is read: record it again"),
    (change("version", 2), "version 2 of the format, where 1 is read: use a newer OpenNPU"),
    (change("format", "other"), "`format` is not 'opennpu-baseline'"),
    (change("limits", None), "'limits' is a required property"),
    (change("runs.fp32.perplexity", "4"), "runs.fp32.perplexity: '4' is not of type 'number'"),
    (change("runs.fp32.perplexity", -1), "runs.fp32.perplexity"),
    (change("runs.fp32.logits.ids.0", [-5]), "runs.fp32.logits.ids[0][0]: -5 is less than the minimum"),
    (change("runs.bf16.logits.next", [-1.0]), "runs.bf16.logits.next has 1 entries, not 255"),
    (change("runs.bf16.generated", []), "runs.bf16.generated has not one entry for each prompt"),
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
