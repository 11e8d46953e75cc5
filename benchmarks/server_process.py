"""SGLang's server in processes of its own, and requests to it in token ids. Imports nothing of SGLang."""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


class ServerError(RuntimeError):
    """The server did not start, or has ended."""


class CalledOff(ServerError):
    """The answer to a request that was called off."""


@dataclass(frozen=True)
class Request:
    """The most likely tokens after a prompt: `new_tokens` of them, or up to an end-of-sequence token."""

    prompt: Sequence[int]
    new_tokens: int


@dataclass(frozen=True)
class Answer:
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]  # of the tokens
    cached_tokens: int  # of the prompt, found in the radix cache


class Server:
    """`python -m sglang.launch_server` with the platform `opennpu`; what it prints goes to the file `log`.

    options are SGLang's settings, by their names in Python; environment is added to that of this process.
    A context manager: entering waits for the server, leaving ends all its processes.
    """

    def __init__(self, model: Path, log: Path, environment: dict[str, str] | None = None, **options):
        self.model, self.log = model, log
        self.environment = {"SGLANG_PLATFORM": "opennpu"} | (environment or {})
        self.port = options.pop("port", None) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.options = {"enable_metrics": True, "skip_server_warmup": True} | options
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, timeout: float = 600) -> None:
        """Returns when the server is ready. Raises ServerError, with the end of the log."""
        self.launch()
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerError(f"no server of {self.model}; its log ends:\n{self.log_text()[-4000:]}")
            time.sleep(0.2)

    def launch(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def command(self) -> list[str]:
        command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(self.model)]
        return [*command, "--port", str(self.port), *flags(self.options)]

    def stop(self) -> None:
        """Ends the processes that the server has started, too."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def metrics(self) -> dict[str, float]:
        """The Prometheus metrics by name, summed over their labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as response:
            text = response.read().decode()
        values: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name] += sample.value
        return dict(values)

    def used_tokens(self) -> int:
        """Places of the KV pool that requests or the radix cache hold now."""
        with urllib.request.urlopen(f"{self.url}/v1/loads", timeout=30) as response:
            (load,) = json.load(response)["loads"]
        return load["num_used_tokens"]

    def flush(self) -> None:
        """Empties the radix cache. Raises ServerError unless all requests are done within a minute."""
        try:
            with urllib.request.urlopen(f"{self.url}/flush_cache?timeout=60", timeout=90):
                pass
        except urllib.error.HTTPError as error:
            raise ServerError(f"{self.url}/flush_cache: {error.read().decode()}") from error

    def ask(self, requests: Sequence[Request], concurrency: int) -> list[Answer]:
        """The answers in the order of the requests, of which `concurrency` are under way at any time."""
        return asyncio.run(self._ask_all(requests, concurrency))

    async def _ask_all(self, requests: Sequence[Request], concurrency: int) -> list[Answer]:
        gate = asyncio.Semaphore(concurrency)
        async with client() as session:

            async def one(request: Request) -> Answer:
                async with gate:
                    return await generate(session, self.url, request)

            return await asyncio.gather(*map(one, requests))


def client() -> aiohttp.ClientSession:
    """A session for any number of requests of any length."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
    )


async def generate(session: aiohttp.ClientSession, url: str, request: Request, **fields) -> Answer:
    """One request to SGLang's `/generate`; ServerError with its text when it fails, CalledOff."""
    async with session.post(f"{url}/generate", json=body(request) | fields) as response:
        if response.status != 200:
            raise ServerError(f"{url}/generate: {response.status}: {await response.text()}")
        answered = await response.json()
        if answered["meta_info"]["finish_reason"]["type"] == "abort":
            raise CalledOff(f"{url}/generate: {answered['meta_info']['finish_reason']['message']}")
        return answer(answered)


async def hang_up(session: aiohttp.ClientSession, url: str, request: Request, seconds: float) -> None:
    """A client that goes away after some seconds, if it has no answer by then."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(generate(session, url, request), seconds)


async def abort(session: aiohttp.ClientSession, url: str, request: Request, seconds: float) -> None:
    """A request that is called off after some seconds, if there is no answer by then."""
    name = uuid.uuid4().hex
    asked = asyncio.create_task(generate(session, url, request, rid=name))
    done, _ = await asyncio.wait([asked], timeout=seconds)
    if not done:
        async with session.post(f"{url}/abort_request", json={"rid": name}, raise_for_status=True):
            pass
    with contextlib.suppress(CalledOff):
        await asked


def body(request: Request) -> dict:
    """A request as `/generate` takes it."""
    return {
        "input_ids": list(request.prompt),
        "sampling_params": {"temperature": 0, "max_new_tokens": request.new_tokens},
        "return_logprob": True,
    }


def answer(response: dict) -> Answer:
    facts = response["meta_info"]
    logprobs = tuple(entry[0] for entry in facts["output_token_logprobs"])
    return Answer(tuple(response["output_ids"]), logprobs, facts["cached_tokens"])


def flags(options: dict) -> list[str]:
    """Command-line flags; True is a bare one, False and None none."""
    given = []
    for name, value in options.items():
        if value is not False and value is not None:
            given += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return given


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _end_with_parent() -> None:
    """In the new process: a signal when the one that started it has died, be it by a signal."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
