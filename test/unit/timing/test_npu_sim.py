"""npu-sim and TimedModel on model.npu files, and the costs in chip files."""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from image_builder import CHIP, copy_program
from opennpu.runtime.chip import CHIPS, Chip, ChipError, ChipTiming
from opennpu.runtime.container import Container
from opennpu.runtime.timing import ENGINES, TimedModel
from opennpu.tools.npu_sim import main
from safetensors.numpy import save_file

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.npu"
LITE = (CHIPS / "npu1-lite.toml").read_text()
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.npu is not there")


@pytest.fixture
def model(tmp_path):
    """Copies T rows of 64 bytes."""
    signature = {
        "chip": CHIP.to_dict(),
        "symbols": {"T": [1, 100]},
        "args": [
            {"kind": "input", "name": "x", "dtype": "f32", "shape": ["T", "16"]},
            {"kind": "output", "name": "y", "dtype": "f32", "shape": ["T", "16"]},
            {"kind": "symbol", "name": "T"},
        ],
    }
    path = tmp_path / "model.npu"
    tensors = {"program": np.frombuffer(copy_program(), np.uint8)}
    save_file(tensors, path, {"opennpu.format": "1", "opennpu.signature": json.dumps(signature)})
    return path


def test_prints_times_stalls_and_ops(model, capsys):
    assert main([str(model), "--symbol", "T=100"]) == 0
    out = capsys.readouterr().out
    assert "npu1-lite: 2 cores at 1000 MHz, HBM 136 GB/s" in out
    assert "HBM 0.01 MB (0.01 loaded, 0.01 stored)" in out
    for word in (*ENGINES, "sequencer", "roofline", "ratio", "copy at test.py:1"):
        assert word in out


def test_json(model, capsys):
    assert main([str(model), "--symbol", "T=100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes_loaded"] == report["bytes_stored"] == 6400
    assert report["cycles"] == pytest.approx(report["seconds"] * 1e9)
    assert report["hbm_gbps"] == pytest.approx(12800 / report["seconds"] / 1e9)
    assert report["ops"][0]["source"] == "copy at test.py:1"
    assert 0 < report["roofline_ratio"] < 1
    assert report["stalls"].keys() == {*ENGINES, "sequencer"}


def test_target_with_other_costs(model, tmp_path, capsys):
    target = tmp_path / "slow.toml"
    target.write_text(LITE.replace("dma_latency_cycles = 250", "dma_latency_cycles = 500"))
    cycles = [TimedModel(Container.open(model), t).zeros({"T": 10}).cycles for t in (None, target)]
    # Each row goes in and out again before the next: all but the end of the last store.
    assert cycles[1] - cycles[0] == 10 * 2 * 250
    assert main([str(model), "--target", "npu1"]) == 1
    assert "compiled for npu1-lite, which differs from npu1 in more than its costs" in capsys.readouterr().err


def test_errors(model, tmp_path, capsys):
    without = tmp_path / "without.toml"
    without.write_text(LITE[: LITE.index("[timing]")])
    for arguments, message in [
        (["--symbol", "S=1"], "no symbol S: the program has T"),
        (["--symbol", "T=101"], "T is 101 by the sizes of the inputs"),
        (["--target", str(without)], "has no table `timing`"),
    ]:
        assert main([str(model), *arguments]) == 1
        assert message in capsys.readouterr().err


def test_costs_are_no_part_of_the_chips_identity(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text(LITE.replace("flag_cycles = 8", "flag_cycles = 9"))
    other, chip = Chip.load(path), Chip.load("npu1-lite")
    assert other.timing != chip.timing
    assert (other, other.fingerprint, other.to_dict()) == (chip, chip.fingerprint, chip.to_dict())
    assert Chip.from_dict(chip.to_dict()).timing is None


@pytest.mark.parametrize("path", sorted(CHIPS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_chip_has_costs_with_a_reason(path):
    assert Chip.load(path).timing is not None
    for line in path.read_text().partition("[timing]")[2].strip().splitlines():
        assert "#" in line, f"no source or assumption: {line}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("flag_cycles = 8", "", "missing key `timing.flag_cycles`"),
        ("flag_cycles = 8", "flag_cycles = -1", "`timing.flag_cycles` must be from 0 to"),
        ("vector_lanes = 128", "vector_lanes = 0", "`timing.vector_lanes` must be from 1 to"),
        ("flag_cycles = 8", "flag_cycles = 8\nbugs = 1", "unknown key `timing.bugs`"),
        ("[timing]", "[[timing]]", "`timing` must be a table"),
    ],
)
def test_wrong_costs_are_explained(tmp_path, old, new, message):
    path = tmp_path / "chip.toml"
    path.write_text(LITE.replace(old, new, 1))
    with pytest.raises(ChipError, match=message.replace("[", r"\[")):
        Chip.load(path)


def test_the_page_names_every_parameter():
    page = (Path(__file__).parents[3] / "docs" / "timing.md").read_text()
    for field in fields(ChipTiming):
        assert f"`{field.name}`" in page
    assert asdict(Chip.load("npu1").timing).keys() == asdict(Chip.load("npu1-lite").timing).keys()


@needs_demo
@pytest.mark.parametrize(("tokens", "seqs", "context"), [(1, 1, 256), (4, 4, 100), (64, 1, 64), (7, 3, 40)])
def test_demo_model(tokens, seqs, context):
    container = Container.open(DEMO)
    model = TimedModel(container)
    report = model.batch(tokens, seqs, context)
    assert report == model.batch(tokens, seqs, context)
    assert 0 < report.roofline_ratio < 1
    # Each weight is loaded at least once, but for rows of an embedding that is no output matrix too.
    embedding = max(w["bytes"] for w in container.signature.weights if w["layout"] == "rows")
    assert report.bytes_loaded > container.signature.weight_bytes - embedding
    assert sum(op["cycles"] for op in report.ops) == report.cycles
    assert any("model.layers.*.mlp" in op["source"] for op in report.most_expensive(10))


@needs_demo
def test_demo_model_in_words(capsys):
    assert main([str(DEMO), "--tokens", "2", "--seqs", "2", "--context", "32", "--ops", "3"]) == 0
    assert "tokens/s (2 a launch)" in capsys.readouterr().out
    assert main([str(DEMO), "--tokens", "2", "--seqs", "3"]) == 1
    assert "each sequence needs at least one new token" in capsys.readouterr().err
