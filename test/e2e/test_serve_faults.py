"""A server on a chip that fails: requests affected get an error, the next ones their answer."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faulty_driver
import pytest
import requests
from image_builder import image, op
from opennpu.runtime.container import Container
from server_process import Server

serving = pytest.mark.serving  # minutes; the rest needs one server

OPTIONS = {
    "dtype": "float32",
    "max_total_tokens": 1024,
    "max_running_requests": 8,
    "page_size": 16,
    "chunked_prefill_size": 64,
    "random_seed": 0,
    "log_level": "info",
}
SHORT, LONG = [7, 8, 9], [*range(2, 150)]  # one piece; three of them
ENDLESS = image(op("loop", rd=2, hi=1 << 60, step=1), op("end_loop"), locs=("layers.1 at model.py:9",))
TRAP = image(op("s_mov", rd=2, a=64), op("s_ld", rd=3), locs=("layers.0 at model.py:7",))


class FailingServer(Server):
    """One on a driver that takes orders."""

    def __init__(self, model: Path, folder: Path, cache: Path, **options):
        self.order, self.cache = folder / "order", cache
        self.overlaps = not options.get("disable_overlap_schedule")
        environment = {
            **faulty_driver.environment(self.order),
            "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",  # a page that is lost ends the server
            "OPENNPU_LAUNCH_LIMIT": "5",  # seconds, of which a launch that ends needs some thousandths
            "OPENNPU_THREADS": "1",  # it waits for no other thread to be scheduled
            "OPENNPU_CACHE_DIR": str(self.cache),
        }
        super().__init__(model, folder / "log", environment, **OPTIONS | options)

    def give(self, function: str, status: str | None = None, **order) -> None:
        """An order for the requests that come now: nothing is left to do of those that have been answered."""
        for _ in range(3):  # it is told within a turn of the scheduler's loop, so two turns have ended
            assert requests.get(f"{self.url}/server_info", timeout=60).ok
        faulty_driver.carried_out(self.order)
        faulty_driver.write(self.order, faulty_driver.order(function, status, **order))

    def respond(self, prompt: list[int], tokens: int = 8) -> requests.Response:
        parameters = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
        body = {"input_ids": prompt, "sampling_params": parameters}
        return requests.post(f"{self.url}/generate", json=body, timeout=120)

    def answer(self, prompt: list[int], tokens: int = 8) -> list[int]:
        response = self.respond(prompt, tokens)
        assert response.ok, f"{response.text}\n{self.tail()}"
        return response.json()["output_ids"]

    def tail(self) -> str:
        return self.log_text()[-6000:]

    def allocated(self) -> list[int]:
        """Bytes of chip memory at each failure so far."""
        return [int(n) for n in re.findall(r"have failed, (\d+) bytes of chip memory", self.log_text())]


SCHEDULING = [
    pytest.param({}, id="overlap"),
    pytest.param({"disable_overlap_schedule": True}, id="no overlap", marks=serving),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Of compiled programs, for all servers."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=SCHEDULING)
def server(request, tiny_llama, cache, tmp_path_factory):
    with FailingServer(tiny_llama, tmp_path_factory.mktemp("server"), cache, **request.param) as started:
        yield started
        assert started.process.poll() is None, started.tail()


@pytest.fixture(scope="module")
def right(server) -> dict[int, list[int]]:
    """The answers of a chip that is well, by the prompt's length."""
    return {len(prompt): server.answer(prompt) for prompt in (SHORT, LONG)}


def fails(response: requests.Response, message: str) -> None:
    assert response.status_code == 500, response.text
    assert re.search(message, response.text), response.text


@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "in pieces"])
def test_a_launch_that_traps(server, right, tmp_path, prompt):
    """Any launch of the way may be the one: in the prompt's first piece, in a later one, at a new token."""
    (tmp_path / "image").write_bytes(TRAP)
    for call in (1, 30, 60):
        server.give("launch", call=call, what=f"run {tmp_path / 'image'}")
        fails(
            server.respond(prompt, 40), r"instruction 1 \(s_ld\) of layers.0 at model.py:7 on core 0: read of"
        )
        assert server.answer(prompt) == right[len(prompt)]


@serving
@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "in pieces"])
def test_a_launch_that_never_ends(server, right, tmp_path, prompt):
    (tmp_path / "image").write_bytes(ENDLESS)
    server.give("launch", call=20, what=f"run {tmp_path / 'image'}")
    fails(
        server.respond(prompt, 40),
        "of layers.1 at model.py:9 on core 0: the launch ran past the limit of 5000 milliseconds",
    )
    assert server.answer(prompt) == right[len(prompt)]


@pytest.mark.parametrize("name", ["block_table", "slot_mapping"])
def test_a_corrupted_page_table(server, right, name):
    """The launch traps, and what is asked next has its right answer; nothing of the cache is trusted."""
    arguments = model_arguments(server)
    for prompt in (SHORT, LONG):
        corrupt = f"corrupt {arguments.index(name)}/{len(arguments)}"
        server.give("launch", what=corrupt)
        fails(server.respond([5, *prompt]), r"of the list is \d+, outside 0 to \d+ \(limit\)")
        response = server.respond(prompt)
        assert response.json()["output_ids"] == right[len(prompt)]
        assert response.json()["meta_info"]["cached_tokens"] == 0
        assert server.respond(prompt).json()["output_ids"] == right[len(prompt)]
    assert server.respond(LONG).json()["meta_info"]["cached_tokens"] >= len(LONG) // 16 * 16 - 16


CALLS = {
    "launch": range(1, 90, 11),
    "copy_to_device": range(1, 20, 4),
    "copy_to_host": range(1, 6, 2),
    "copy_on_device": (1, 4),
    "stream_synchronize": range(1, 6, 2),
    "stream_wait_event": range(1, 8),
    "event_create": range(1, 8, 3),
    "event_record": range(1, 8, 3),
    "event_query": (1, 5),
    "event_synchronize": (1, 2),
    "memory_info": (1,),
    "device_counters": (1,),
}
"""Function of the driver → which of its calls fails."""
CHEAP = ("copy_to_device", "device_counters")
BETWEEN_STREAMS = ("stream_wait_event", "event_synchronize")
"""Calls that nobody makes without overlap scheduling: all work is on one stream."""
NOBODY = ("memory_info", "device_counters")
"""Calls for the metrics, which no request needs."""


@pytest.mark.parametrize(
    "function", [pytest.param(name, marks=() if name in CHEAP else serving) for name in CALLS]
)
def test_each_call_that_fails(server, right, function):
    """An answer is right or an error that says so, whatever the call was for; the next one is right."""
    failed = 0
    for call in CALLS[function]:
        for prompt in (SHORT, LONG):
            server.give(function, call=call)
            response = server.respond([3, *prompt])
            failed += faulty_driver.carried_out(server.order)
            assert server.process.poll() is None, server.tail()
            if not response.ok:
                assert function not in NOBODY, response.text
                fails(response, f"injected failure of {function}")
            faulty_driver.write(server.order, "nothing 0 0")
            assert server.answer(prompt) == right[len(prompt)]
    if server.overlaps or function not in BETWEEN_STREAMS:
        assert failed > 0, f"the server does not call {function}"


@serving
@pytest.mark.parametrize("function", ["copy_to_device", "event_create"])
def test_emptying_the_cache_fails(server, right, function):
    server.give(function)
    assert requests.post(f"{server.url}/flush_cache", timeout=60).ok
    assert faulty_driver.carried_out(server.order)
    faulty_driver.write(server.order, "nothing 0 0")
    assert server.answer(LONG) == right[len(LONG)]


def test_a_chip_out_of_memory(server, right):
    server.give("launch", "out_of_memory")
    fails(server.respond(SHORT), "injected failure of launch")
    assert server.answer(SHORT) == right[len(SHORT)]


@serving
def test_requests_at_the_same_time(server, right):
    """Of those in company some fail; who gets an answer gets the right one, and later all do."""
    prompts = [SHORT, LONG] * 4
    with ThreadPoolExecutor(len(prompts)) as pool:
        for call in (25, 60, 95):
            server.give("launch", "trap", call=call)
            responses = list(pool.map(server.respond, prompts))
            assert not all(response.ok for response in responses)
            for prompt, response in zip(prompts, responses, strict=True):
                if response.ok:
                    assert response.json()["output_ids"] == right[len(prompt)]
                else:
                    fails(response, "injected failure of launch")
            assert list(pool.map(server.answer, prompts)) == [right[len(prompt)] for prompt in prompts]


@serving
def test_a_stream_ends_with_the_error(server, right):
    server.give("launch", "trap", call=200)
    body = {"input_ids": SHORT, "stream": True}
    body["sampling_params"] = {"temperature": 0, "max_new_tokens": 100, "ignore_eos": True}
    with requests.post(f"{server.url}/generate", json=body, stream=True, timeout=120) as response:
        lines = [json.loads(line[6:]) for line in response.iter_lines() if line[6:7] == b"{"]
    assert lines[-1].get("error") or lines[-1]["meta_info"]["finish_reason"]["type"] == "abort", lines[-1]
    assert "injected failure of launch" in json.dumps(lines[-1])
    assert server.answer(SHORT) == right[len(SHORT)]


def test_nothing_is_leaked(server, right):
    """All pages are free or in the cache, else the server has ended; chip memory does not grow."""

    def fail() -> int:
        server.give("launch", "trap", call=20)
        assert not server.respond(LONG, 40).ok
        return server.allocated()[-1]

    fail()
    assert {fail() for _ in range(3)} == {server.allocated()[-1]}
    assert requests.post(f"{server.url}/flush_cache", timeout=60).ok
    whole = [[token, *LONG] for token in range(2, 7)]  # with their answers: all pages but a few
    with ThreadPoolExecutor(len(whole)) as pool:
        answers = list(pool.map(lambda prompt: server.answer(prompt, 20), whole))
    assert all(len(answer) == 20 for answer in answers)
    assert server.process.poll() is None, server.tail()


@serving
def test_a_lost_chip_ends_the_server(tiny_llama, cache, tmp_path):
    with FailingServer(tiny_llama, tmp_path, cache) as started:
        started.give("launch", "device_lost")
        with pytest.raises(requests.RequestException):
            started.respond(SHORT).raise_for_status()
        assert started.process.wait(60) != 0
        assert "the chip is lost, the server ends: opennpu: injected failure of launch" in started.tail()


def model_arguments(server) -> list[str]:
    """Names of the launch arguments of the model's program, which is the one with pages in the cache."""
    for path in sorted(server.cache.rglob("*.npu"), key=lambda path: -path.stat().st_size):
        signature = Container.open(path).signature
        if signature.kv is not None and "block_table" in signature.tensors("input"):
            return [getattr(arg, "name", arg.kind) for arg in signature.args]
    raise AssertionError(f"no program of a model in {server.cache}")
