"""npu-prof: what is recorded agrees with the report; the page and the trace are whole."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from image_builder import image, op
from micro import chip, fill, load, set_flag, wait_flag
from opennpu.runtime.timing import ENGINES, Scope, time_image
from opennpu.tools.npu_prof import main
from opennpu.tools.profile.names import instruction_names, op_name
from opennpu.tools.profile.page import page
from opennpu.tools.profile.perfetto import trace

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.npu"
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.npu is not there")

BODY = [
    load(4096, loc=0),
    set_flag("load", 0),
    wait_flag("vector", 0),
    fill(160),
    op("barrier", loc=0),
    op("mx_load", k=32, n=16, dtype="bf16", loc=1),
    op("mx_mul", rows=20, loc=1),
]
SOURCES = ("model.layers.*.mlp (a.py:1) + model.layers.*.act (b.py:2)", "model.norm (c.py:3)")


def recorded(scope: Scope, cores: int = 2):
    on = chip(cores=cores)
    data = image(*BODY, locs=SOURCES, chip=on)
    return time_image(on, data, [], scope), instruction_names(data)


def test_a_recording_has_every_instruction_of_the_engines():
    report, names = recorded(Scope((0, 1)))
    recording = report.recording
    # Two cores share the memory: 130 cycles; then the latency, the flag, the vector unit; a barrier.
    slices = [tuple(s) for s in recording.slices.tolist() if s[0] == 1]
    barrier = 1 + 130 + 100 + 5 + 20 + 20
    assert slices == [
        (1, 0, 0, 0, 0, 1, 131, 231),
        (1, 3, 0, 3, 0, 236, 256, 256),
        (1, 2, 1, 5, 1, barrier + 1, barrier + 33, barrier + 33),
        (1, 2, 0, 6, 1, barrier + 33, barrier + 53, barrier + 83),
    ]
    assert [names[s[3]] for s in slices] == ["dma_load", "v_fill", "mx_load", "mx_mul"]
    arrows = recording.slices[recording.arrows["from"]], recording.slices[recording.arrows["to"]]
    assert [list(ends["queue"]) for ends in arrows] == [[0, 0], [3, 3]]
    assert [tuple(s) for s in recording.stretches.tolist()] == [(0, 0, barrier), (0, barrier, report.cycles)]
    assert not recording.truncated


def test_scope():
    assert set(recorded(Scope((1, 7)))[0].recording.slices["core"]) == {1}
    assert {s[3] for s in recorded(Scope((0,), 132, 260))[0].recording.slices.tolist()} == {3}
    few = recorded(Scope((0, 1), most=3))[0].recording
    assert (len(few.slices), few.truncated) == (3, True)


def test_recording_changes_no_time():
    assert recorded(Scope((0, 1)))[0] == recorded(Scope(()))[0]


def test_op_names():
    assert op_name(SOURCES[0]) == "model.layers.*.mlp + model.layers.*.act"
    assert op_name("") == "(start and end of the program)"


def test_perfetto_trace():
    report, names = recorded(Scope((0, 1)))
    events = trace(report, names, "test")["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    titles = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    tracks = {(titles[e["pid"], e["tid"]], e["name"]) for e in slices}
    assert ("load", "dma_load") in tracks
    assert ("matrix: stationary tiles", "mx_load") in tracks
    assert ("from barrier to barrier", "model.layers.*.mlp + model.layers.*.act") in tracks
    assert max(e["ts"] + e["dur"] for e in slices) == pytest.approx(report.cycles / 1000)  # µs at 1000 MHz
    starts, ends = ({e["id"]: e for e in events if e["ph"] == phase} for phase in "sf")
    assert starts.keys() == ends.keys() and len(starts) == 2
    for number, start in starts.items():
        assert start["ts"] <= ends[number]["ts"]
        assert any(s["pid"] == start["pid"] and s["ts"] + s["dur"] == start["ts"] for s in slices)


def data_of(text: str) -> dict:
    (line,) = re.findall(r"^const D = (.*);$", text, re.MULTILINE)
    return json.loads(line.replace("<\\/", "</"))


def test_page():
    report, names = recorded(Scope((0,)))
    text = page(report, "a <b> & c", "a launch", None, names)
    assert not re.search(r"(https?:|src=|href=|@import|url\()", text), "the page needs no network"
    data = data_of(text)
    assert data["title"] == "a <b> & c"
    for engine in ENGINES:
        assert sum(data["shares"][engine].values()) == pytest.approx(1)
        for source in data["ops"]:
            assert sum(source["by"][engine].values()) == source["cycles"] * report.chip.cores
    counts = Counter(names[row[4]] for row in data["slices"]["0"])
    assert counts == {"dma_load": 1, "v_fill": 1, "mx_load": 1, "mx_mul": 1}


def test_a_script_in_a_name_stays_text():
    report, names = recorded(Scope((0,)))
    report.ops[0]["source"] = "</script><script>alert(1)</script>"
    text = page(report, "title", "a launch", None, names)
    assert text.count("</script>") == 1
    assert data_of(text)["ops"][0]["source"] == "</script><script>alert(1)</script>"


@needs_demo
def test_npu_prof(tmp_path, capsys):
    html, perfetto = tmp_path / "p.html", tmp_path / "p.json"
    arguments = [str(DEMO), "--seqs", "2", "--context", "40", "--cores", "0-1", "--slices", "500"]
    assert main([*arguments, "-o", str(html), "--perfetto", str(perfetto)]) == 0
    assert "500 instructions recorded, cut off at cycle" in capsys.readouterr().out
    data = data_of(html.read_text())
    assert data["launch"] == "2 new tokens of 2 sequences, context 40"
    assert data["slices"].keys() == {"0", "1"}
    slices = [e for e in json.loads(perfetto.read_text())["traceEvents"] if e.get("cat") in ENGINES]
    assert len(slices) == 500
    with pytest.raises(SystemExit):
        main([str(DEMO)])
