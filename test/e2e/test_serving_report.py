"""The report of a server's launches, on a log written by hand."""

import json

import pytest
from lab import DEMO
from opennpu.runtime.container import Container
from opennpu.runtime.serving_report import Log, LogError, alike, report, table
from opennpu.runtime.timing import TimedModel

LOG = [
    {"program": str(DEMO / "model.npu")},
    {"request": 0, "arrival": 5.0},  # before the server was ready
    {"phase": "prefill", "launched": 5.1, "done": 5.2, "pieces": [[0, 8, 8, True]]},
    {"request": 1, "arrival": 10.0},
    {"phase": "prefill", "launched": 10.1, "done": 10.6, "pieces": [[1, 64, 64, False]]},
    {"phase": "prefill", "launched": 10.5, "done": 11.0, "pieces": [[1, 40, 104, True]]},
    {"request": 2, "arrival": 10.7},
    {"phase": "prefill", "launched": 11.0, "done": 11.2, "pieces": [[2, 5, 5, True]]},
    {"phase": "decode", "launched": 11.2, "done": 11.3, "pieces": [[1, 1, 105, True], [2, 1, 6, True]]},
    {"phase": "decode", "launched": 11.3, "done": 11.5, "pieces": [[1, 1, 106, True], [None, 1, 7, False]]},
]
SHAPES = [[(64, 256)], [(48, 256)], [(16, 256)], [(1, 256), (1, 256)], [(1, 256), (1, 256)]]
"""What the launches of requests 1 and 2 are timed as, by hand."""


@pytest.fixture
def log(tmp_path, smollm2):
    path = tmp_path / "launches.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LOG) + '{"phase": "dec')
    return path


def test_times_of_tokens_and_phases(log):
    found = report(Log.read(log, since=9.0))
    model = TimedModel(Container.open(DEMO / "model.npu"))
    a, b, c, d, e = (model.step(shape).seconds for shape in SHAPES)
    assert (found.requests, found.output_tokens, found.timed) == (2, 5, 4)
    assert found.measured.ttft == pytest.approx([1.0, 0.5])
    assert found.measured.inter_token == pytest.approx([0.3, 0.1, 0.2])
    assert found.measured.busy == pytest.approx({"prefill": 0.5 + 0.4 + 0.2, "decode": 0.3, "mixed": 0})
    assert found.estimated.ttft == pytest.approx([a + b, c])
    assert found.estimated.inter_token == pytest.approx([c + d, d, e])
    assert found.phases["prefill"].seconds == pytest.approx(a + b + c)
    assert (found.phases["prefill"].tokens, found.phases["decode"].tokens) == (109, 4)


def test_the_table_and_its_json_say_the_same(log):
    found = report(Log.read(log, since=9.0))
    text, data = "\n".join(table(found)), found.to_dict()
    assert f"{data['measured']['ttft']['mean'] * 1e3:.2f} ms" in text
    assert f"{data['estimated']['inter_token']['p99'] * 1e3:.2f} ms" in text
    assert f"{data['estimated']['output_tokens_per_second']:.1f} /s" in text
    assert data["phases"]["prefill"]["launches"] == 3


@pytest.mark.parametrize(
    ("pieces", "shape"),
    [
        ([(17, 17)], [(32, 32)]),
        ([(5, 9), (6, 40)], [(8, 25)] * 2),
        ([(300, 300), (300, 900)], [(320, 600)] * 2),
        ([(1000, 1000)], [(1000, 1000)]),  # 1024 would not fit
    ],
)
def test_like_prompts_are_timed_as_one(log, pieces, shape):
    launch = Log.read(log).launches[0]
    launch.pieces = pieces
    assert alike(launch, most=1000) == (shape, [])


@pytest.mark.parametrize("text", ["", '{"program": null}\n', '{"program": "x"}\n'])
def test_a_log_without_requests(tmp_path, text):
    (tmp_path / "log").write_text(text)
    with pytest.raises(LogError):
        Log.read(tmp_path / "log")
