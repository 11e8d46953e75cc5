"""The log of launches: which row of a launch gave a token, in the order in which SGLang tells."""

import json
from types import SimpleNamespace

import pytest
from opennpu.sglang_integration.launch_log import LaunchLog


class Request:
    """As much of SGLang's `Req` as is looked at."""

    def __init__(self, rid: str):
        self.rid, self.output_ids, self.ended = rid, [], False
        self.time_stats = SimpleNamespace(wait_queue_entry_time=1.0)

    def finished(self) -> bool:
        return self.ended


@pytest.fixture
def add(tmp_path):
    """Logs a launch of rows (request, new tokens, length, gave a token) and returns its pieces."""
    model = SimpleNamespace(forward=SimpleNamespace(program="model.npu"))
    runner = SimpleNamespace(model_runner=SimpleNamespace(model=model))
    log = LaunchLog(str(tmp_path / "log"), SimpleNamespace(tp_worker=runner))

    def launch(phase: str, *rows):
        for request, _, _, gives in rows:
            request.output_ids += [7] if gives else []
        requests, new, lengths, _ = zip(*rows, strict=True)
        batch = SimpleNamespace(reqs=requests, launch_ts=2.0)
        log.add(SimpleNamespace(batch=batch, phase=phase, new_tokens=new, lengths=lengths))
        return json.loads((tmp_path / "log").read_text().splitlines()[-1])["pieces"]

    launch.path = tmp_path / "log"
    return launch


def registered(path) -> int:
    return sum("request" in json.loads(line) for line in path.read_text().splitlines())


def test_a_prompt_in_pieces_gives_one_token(add):
    request = Request("a")
    assert add("prefill", (request, 64, 64, False)) == [[0, 64, 64, False]]
    assert add("prefill", (request, 6, 70, True)) == [[0, 6, 70, True]]
    assert add("decode", (request, 1, 71, True)) == [[0, 1, 71, True]]


@pytest.mark.parametrize("phase", ["decode", "mixed"])
def test_a_request_that_has_ended_is_no_new_one(add, phase):
    ended, other = Request("a"), Request("b")
    add("prefill", (ended, 8, 8, True))
    ended.ended = True
    assert add("decode", (ended, 1, 9, True)) == [[0, 1, 9, True]]
    assert add(phase, (ended, 1, 10, False), (other, 4, 4, True)) == [[None, 1, 10, False], [1, 4, 4, True]]
    assert registered(add.path) == 2
    assert add("prefill", (Request("a"), 8, 8, True)) == [[2, 8, 8, True]]  # a name may be used again


def test_a_request_that_was_put_back(add):
    """Its launch under way gives none; its prompt comes again with what it had got, in pieces."""
    request = Request("a")
    add("prefill", (request, 8, 8, True))
    add("decode", (request, 1, 9, True))
    assert add("decode", (request, 1, 10, False)) == [[0, 1, 10, False]]
    assert add("prefill", (request, 9, 9, False)) == [[0, 9, 9, False]]
    assert add("prefill", (request, 1, 10, True)) == [[0, 1, 10, True]]
    assert registered(add.path) == 1
