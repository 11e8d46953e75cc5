"""npu-explore: sweeps, the Pareto front, and what would make a launch faster, on the demo's archive."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from opennpu.runtime.chip import Chip, ChipError
from opennpu.tools.exploration.pareto import Point, front, picture
from opennpu.tools.exploration.sweep import REST, Launch, changed, combinations
from opennpu.tools.npu_explore import main

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.pt"
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.pt is not there")


def test_changed():
    chip = changed(Chip.load("npu1"), {"cores": 8, "hbm_gbps": 900})
    assert (chip.cores, chip.timing.hbm_gbps, chip.clock_mhz) == (8, 900, 1600)
    assert Chip.load("npu1").cores == 16
    with pytest.raises(ChipError, match=r"a chip has no coers: it has .*cores"):
        changed(Chip.load("npu1"), {"coers": 8})
    with pytest.raises(ChipError, match=r"`memory.align_bytes` must be a power of two"):
        changed(Chip.load("npu1"), {"align_bytes": 100})


def test_combinations():
    assert combinations({}) == [{}]
    assert combinations({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4},
    ]  # fmt: skip


def test_launches():
    assert [str(Launch.parse(text)) for text in ("1:1:8", "8:8:2048", "2048:1:2048")] == [
        "decode 1 @ 8", "decode 8 @ 2048", "prefill 2048 @ 2048",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="must be positive"):
        Launch.parse("0:1:1")


def test_front():
    points = [
        Point("slow", 1, 5),
        Point("a", 1, 10),
        Point("worse", 2, 9),
        Point("b", 3, 20),
        Point("c", 4, 20),
    ]
    assert [point.label for point in front(points)] == ["a", "b"]


def test_picture():
    points = [Point(f"cores={n} & <more>", n, 100.0 * n) for n in (1, 2, 4)]
    root = ElementTree.fromstring(
        picture({"decode": points, "prefill": points, "x": points}, "size", "tokens/s")
    )
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("cores=4 & <more>") == 3
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 9
    width, height = (float(x) for x in root.get("viewBox").split()[2:])
    assert (width, height) == (920, 660)


@needs_demo
def test_a_sweep(tmp_path, capsys):
    svg = tmp_path / "sweep.svg"
    sweep = ["--sweep", "spm_kib=8,512", "--sweep", "hbm_gbps=68,272"]
    launches = ["--launch", "1:1:64"]
    assert main([str(DEMO), *sweep, *launches, "--json", "--svg", str(svg)]) == 0
    data = json.loads(capsys.readouterr().out)
    small, _, slow, fast = data["chips"]
    assert "not one row fits" in small["failure"] and not small["launches"]
    slow, fast = (chip["launches"]["decode 1 @ 64"] for chip in (slow, fast))
    assert slow["limit"] == "HBM bandwidth"
    # Twice the bandwidth saves at most half the time.
    assert 0.3 < slow["gains"]["HBM bandwidth"] < 0.5
    assert fast["gains"]["HBM bandwidth"] < slow["gains"]["HBM bandwidth"]
    assert fast["gains"][REST] > slow["gains"][REST]
    assert fast["tokens_per_second"] > slow["tokens_per_second"]
    assert svg.read_text().count("<circle") == 2


@needs_demo
def test_in_words(capsys):
    assert main([str(DEMO), "--sweep", "cores=1,2", "--launch", "2:2:32", "--no-gains"]) == 0
    out = capsys.readouterr().out
    for words in ("decode 2 @ 32", "cores=1", "cores=2", "tokens/s", "roofline"):
        assert words in out
    assert main([str(DEMO), "--sweep", "bugs=1"]) == 1
    assert "a chip has no bugs" in capsys.readouterr().err
