"""Continuous batching over timed launches: by hand on launches of known times, and the demo's model."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from opennpu.runtime.container import Container
from opennpu.runtime.timing import TimedModel
from opennpu.runtime.traffic import Policy, Request, TraceError, read_trace, serve, summary
from opennpu.tools.npu_sim import main

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.npu"
needs_demo = pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.npu is not there")


@dataclass
class Stopwatch:
    """A model whose launches take a second and a tenth of a second for each new token."""

    launches: list = field(default_factory=list)
    program = SimpleNamespace(signature=SimpleNamespace(model={"context_length": 1000}))

    def step(self, pieces):
        self.launches.append(pieces)
        tokens = sum(new for new, _ in pieces)
        return SimpleNamespace(seconds=1 + tokens / 10, hbm_bytes=tokens, roofline_ratio=0.5)


def policy(**changes) -> Policy:
    return replace(Policy(chunk=10, max_batch=2, kv_tokens=1000, context_step=1), **changes)


def test_one_request():
    model = Stopwatch()
    served = serve(model, [Request(5.0, 15, 3)], policy())
    assert model.launches == [((10, 10),), ((5, 15),), ((1, 16),), ((1, 17),)]
    assert served.ttft == pytest.approx([2.0 + 1.5])
    assert served.inter_token == pytest.approx([1.1, 1.1])
    assert served.makespan == pytest.approx(5 + 3.5 + 2.2)
    assert served.phases["prefill"].seconds == pytest.approx(3.5)
    assert served.phases["decode"].to_dict()["roofline_ratio"] == pytest.approx(0.5)


def test_prompts_go_first_and_the_batch_is_bounded():
    model = Stopwatch()
    requests = [Request(0.0, 4, 2), Request(0.0, 4, 2), Request(0.0, 4, 1)]
    served = serve(model, requests, policy())
    assert model.launches == [((4, 4), (4, 4)), ((1, 5), (1, 5)), ((4, 4),)]
    assert served.ttft == pytest.approx([1.8, 1.8, 1.8 + 1.2 + 1.4])
    assert served.phases["mixed"].launches == 0


def test_mixed_launches():
    model = Stopwatch()
    requests = [Request(0.0, 4, 4), Request(0.1, 14, 1)]
    served = serve(model, requests, policy(mixed=True))
    assert model.launches == [((4, 4),), ((1, 5), (10, 10)), ((1, 6), (4, 14)), ((1, 7),)]
    assert served.phases["mixed"].launches == 2


def test_a_request_waits_for_the_kv_pool():
    model = Stopwatch()
    serve(model, [Request(0.0, 10, 6), Request(0.0, 10, 6)], policy(kv_tokens=31))  # whole pages of 16
    assert max(len(pieces) for pieces in model.launches) == 1


def test_like_launches_are_timed_once():
    model = Stopwatch()
    requests = [Request(0.0, 30, 20), Request(0.0, 10, 20)]
    served = serve(model, requests, policy(chunk=40, context_step=100))
    assert model.launches == [((10, 100), (30, 100)), ((1, 100), (1, 100))]
    assert served.phases["decode"].launches == 19


def test_requests_that_can_never_run():
    with pytest.raises(TraceError, match="context of 1000 tokens"):
        serve(Stopwatch(), [Request(0.0, 990, 11)], policy())
    with pytest.raises(TraceError, match="KV pool of 100 tokens"):
        serve(Stopwatch(), [Request(0.0, 90, 11)], policy(kv_tokens=100))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "trace.jsonl:2: not a request"),
        ('{"arrival": 0, "prompt": 3}', "KeyError"),
        ('{"arrival": -1, "prompt": 3, "output": 2}', "arrival must be ≥ 0"),
        ('{"arrival": 0, "prompt": 3, "output": 1.5}', "whole numbers"),
    ],
)
def test_damaged_traces(tmp_path, line, message):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"arrival": 0, "prompt": 3, "output": 2}\n' + line)
    with pytest.raises(TraceError, match=message):
        read_trace(path)


def test_summary():
    assert summary(range(1, 101)) == {"mean": 50.5, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert summary([3.0]) == {"mean": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0, "max": 3.0}


@needs_demo
def test_rounded_contexts_are_close():
    """At most 64 tokens of context too many a sequence, 3 MB of KV; a launch moves 270 MB of weights."""
    requests = [Request(0.01 * i, 40 + 11 * i, 6) for i in range(5)]
    model = TimedModel(Container.open(DEMO))
    exact, rounded = (serve(model, requests, Policy(128, 4, True, 4096, step)) for step in (1, 64))
    assert exact.makespan <= rounded.makespan <= 1.05 * exact.makespan


@needs_demo
def test_npu_sim_serves_a_trace(tmp_path, capsys):
    path = tmp_path / "trace.jsonl"
    lines = [{"arrival": 0.02 * i, "prompt": 30, "output": 3} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert main([str(DEMO), "--trace", str(path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["prompt_tokens"], data["output_tokens"]) == (90, 9)
    assert data["ttft"]["p50"] < data["latency"]["p50"] < data["makespan"]
    assert main([str(DEMO), "--trace", str(path)]) == 0
    out = capsys.readouterr().out
    for words in ("3 requests", "time to first token", "inter-token latency", "prefill", "decode"):
        assert words in out
