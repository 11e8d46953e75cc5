"""Requests over time on the chip: continuous batching over the timing model's launches (docs/timing.md)."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.timing import PAGE_SIZE, TimedModel, TimingReport

PHASES = ("prefill", "decode", "mixed")

Piece = tuple[int, int]
"""Of one sequence in a launch: its new tokens, and its length afterwards."""


class TraceError(ValueError):
    """A trace that cannot be served; the message names the line and the remedy."""


@dataclass(frozen=True)
class Request:
    arrival: float  # seconds from the start of the trace
    prompt: int  # tokens
    output: int  # tokens, the first of which the prompt's last launch gives


@dataclass(frozen=True)
class Policy:
    """How requests become launches.

    chunk: prompt tokens of a launch at most. max_batch: sequences that run at a time. mixed: a launch takes
    prompts and running sequences together; else prompts go first. kv_tokens: what the KV pool holds; a
    request is admitted once its prompt and output fit. context_step: launches are timed with contexts rounded
    up to a multiple of this, and running sequences with their mean, so that like launches are timed once; 1
    times every launch as it is.
    """

    chunk: int = 512
    max_batch: int = 64
    mixed: bool = False
    kv_tokens: int | None = None
    context_step: int = 256


@dataclass
class Phase:
    """Sums over the launches of one kind."""

    launches: int = 0
    seconds: float = 0.0
    tokens: int = 0
    hbm_bytes: int = 0
    bound_seconds: float = 0.0

    def add(self, tokens: int, report: TimingReport) -> None:
        self.launches += 1
        self.seconds += report.seconds
        self.tokens += tokens
        self.hbm_bytes += report.hbm_bytes
        self.bound_seconds += report.seconds * report.roofline_ratio

    def to_dict(self) -> dict:
        """Rates are of this phase's time; `roofline_ratio` is the bound of its work over that time."""
        return {
            "launches": self.launches,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / self.seconds,
            "hbm_gbps": self.hbm_bytes / self.seconds / 1e9,
            "roofline_seconds": self.bound_seconds,
            "roofline_ratio": self.bound_seconds / self.seconds,
        }


@dataclass
class _Sequence:
    request: Request
    cached: int = 0  # tokens with keys and values
    times: list[float] = field(default_factory=list)  # of its output tokens

    @property
    def prompt_left(self) -> int:
        return max(self.request.prompt - self.cached, 0)

    @property
    def finished(self) -> bool:
        return len(self.times) == self.request.output


@dataclass(frozen=True)
class Served:
    """What became of a trace. Times are seconds."""

    requests: int
    makespan: float
    prompt_tokens: int
    output_tokens: int
    ttft: list[float]  # time to first token, by request in order of arrival
    inter_token: list[float]  # of all requests
    latency: list[float]  # from arrival to the last token, by request
    phases: dict[str, Phase]

    def to_dict(self) -> dict:
        return {
            "requests": self.requests,
            "makespan": self.makespan,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "output_tokens_per_second": self.output_tokens / self.makespan,
            "total_tokens_per_second": (self.prompt_tokens + self.output_tokens) / self.makespan,
            "ttft": summary(self.ttft),
            "inter_token": summary(self.inter_token),
            "latency": summary(self.latency),
            "phases": {name: phase.to_dict() for name, phase in self.phases.items() if phase.launches},
        }


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, and the least value that so many percent do not exceed; nothing for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    percentiles = {f"p{p}": ordered[-(-len(ordered) * p // 100) - 1] for p in (50, 90, 99)}
    return {"mean": sum(ordered) / len(ordered), **percentiles, "max": ordered[-1]}


def read_trace(path: Path) -> list[Request]:
    """A line of JSON a request: {"arrival": seconds, "prompt": tokens, "output": tokens}, in any order.
    Raises TraceError, OSError."""
    requests = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            requests.append(_request(line, f"{path}:{number}"))
    if not requests:
        raise TraceError(
            f"{path}: no request; a line is {{'arrival': 0.5, 'prompt': 100, 'output': 20}} as JSON"
        )
    return sorted(requests, key=lambda request: request.arrival)


def _request(line: str, where: str) -> Request:
    try:
        fields = json.loads(line)
        request = Request(fields["arrival"], fields["prompt"], fields["output"])
        valid = request.arrival >= 0 and all(
            type(n) is int and n > 0 for n in (request.prompt, request.output)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{where}: not a request with arrival, prompt and output: {error!r}") from error
    if not valid:
        raise TraceError(f"{where}: arrival must be ≥ 0, prompt and output whole numbers ≥ 1")
    return request


def kv_capacity(model: TimedModel) -> int:
    """Tokens whose keys and values the chip's HBM holds beside the weights."""
    signature = model.program.signature
    kv = signature.kv
    token = kv.layers * kv.kv_heads * (kv.head_dim + kv.v_head_dim) * DTYPES[kv.dtype].itemsize
    return (model.chip.hbm_bytes - signature.weight_bytes) // token


def serve(
    model: TimedModel,
    requests: Iterable[Request],
    policy: Policy,
    progress: Callable[[int], None] = lambda finished: None,
) -> Served:
    """Serves `requests`, sorted by arrival; tells `progress` how many have finished. The host takes no time.
    Raises TraceError for a request that can never run."""
    return _Server(model, list(requests), policy, progress).run()


class _Server:
    def __init__(
        self,
        model: TimedModel,
        requests: list[Request],
        policy: Policy,
        progress: Callable[[int], None],
    ):
        self.policy, self.progress = policy, progress
        self.kv_free = policy.kv_tokens or kv_capacity(model)
        self.times = LaunchTimes(model, policy.context_step)
        self.sequences = [_Sequence(request) for request in requests]
        self.coming = deque(self.sequences)
        self.running: list[_Sequence] = []
        self.now, self.finished = 0.0, 0
        self.phases = {name: Phase() for name in PHASES}
        _check(requests, model.program.signature.model["context_length"], self.kv_free)

    def run(self) -> Served:
        while self.coming or self.running:
            self._admit()
            if not self.running:
                self.now = self.coming[0].request.arrival
                continue
            self._launch(self._choose())
        return self._served()

    def _admit(self) -> None:
        """First come, first served: as many as fit the batch and the KV pool with all that they will need."""
        while self.coming and len(self.running) < self.policy.max_batch:
            request = self.coming[0].request
            if request.arrival > self.now or _kv_tokens(request) > self.kv_free:
                return
            self.kv_free -= _kv_tokens(request)
            self.running.append(self.coming.popleft())

    def _choose(self) -> list[tuple[_Sequence, int]]:
        """The sequences of the next launch with their new tokens."""
        budget, prompts = self.policy.chunk, []
        for sequence in self.running:
            if sequence.prompt_left and budget:
                prompts.append((sequence, min(sequence.prompt_left, budget)))
                budget -= prompts[-1][1]
        decodes = [(sequence, 1) for sequence in self.running if not sequence.prompt_left]
        return prompts + decodes if self.policy.mixed else prompts or decodes

    def _launch(self, chosen: list[tuple[_Sequence, int]]) -> None:
        prompts = [(new, s.cached + new) for s, new in chosen if s.prompt_left]
        decodes = [s.cached + 1 for s, _ in chosen if not s.prompt_left]
        report = self.times.of(prompts, decodes)
        self.phases[PHASES[(2 if prompts else 1) if decodes else 0]].add(
            sum(new for _, new in chosen), report
        )
        self.now += report.seconds
        for sequence, new in chosen:
            sequence.cached += new
            if not sequence.prompt_left:
                sequence.times.append(self.now)
            if sequence.finished:
                self.running.remove(sequence)
                self.kv_free += _kv_tokens(sequence.request)
                self.finished += 1
        self.progress(self.finished)

    def _served(self) -> Served:
        requests = [sequence.request for sequence in self.sequences]
        return Served(
            requests=len(requests),
            makespan=self.now,
            prompt_tokens=sum(request.prompt for request in requests),
            output_tokens=sum(request.output for request in requests),
            ttft=[s.times[0] - s.request.arrival for s in self.sequences],
            inter_token=[b - a for s in self.sequences for a, b in zip(s.times, s.times[1:], strict=False)],
            latency=[s.times[-1] - s.request.arrival for s in self.sequences],
            phases=self.phases,
        )


class LaunchTimes:
    """Reports of launches; like ones are timed once."""

    def __init__(self, model: TimedModel, context_step: int):
        self.model, self.step = model, context_step
        self.most = model.program.signature.model["context_length"]
        self.known: dict[tuple[Piece, ...], TimingReport] = {}

    def of(self, prompts: list[Piece], decodes: list[int]) -> TimingReport:
        pieces = tuple(sorted(self._alike(prompts, decodes)))
        if pieces not in self.known:
            self.known[pieces] = self.model.step(pieces)
        return self.known[pieces]

    def _alike(self, prompts: list[Piece], decodes: list[int]) -> Iterator[Piece]:
        if self.step == 1:
            yield from prompts
            yield from ((1, length) for length in decodes)
            return
        yield from ((new, self._rounded(length)) for new, length in prompts)
        if decodes:
            yield from [(1, self._rounded(-(-sum(decodes) // len(decodes))))] * len(decodes)

    def _rounded(self, length: int) -> int:
        return min(-(-length // self.step) * self.step, self.most)


def _kv_tokens(request: Request) -> int:
    return -(-(request.prompt + request.output) // PAGE_SIZE) * PAGE_SIZE


def _check(requests: list[Request], context: int, kv_tokens: int) -> None:
    for request in requests:
        if request.prompt + request.output > context:
            raise TraceError(f"{request}: prompt and output exceed the model's context of {context} tokens")
        if _kv_tokens(request) > kv_tokens:
            raise TraceError(f"{request}: prompt and output exceed the KV pool of {kv_tokens} tokens")
