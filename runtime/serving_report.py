"""What the launches of a server would have taken on its chip, beside what they took (docs/sglang.md).

The same launches, in the same order, at other times: launch k ends at the sum of the estimates up to k.
A request's time to first token runs from the first launch after its arrival to the end of the one that gave
the token; the time between tokens is that of the launches after the one up to the other.
"""

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from opennpu.runtime.container import Container
from opennpu.runtime.timing import TimedModel
from opennpu.runtime.traffic import PHASES, LaunchTimes, Phase, Piece, summary

CONTEXT_STEP = 256
"""Tokens; launches are timed with contexts rounded up to it, so that like ones are timed once."""


class LogError(ValueError):
    """A log that tells nothing; the message says why."""


@dataclass
class Launch:
    phase: str
    launched: float  # seconds of one clock, as all times of the log
    done: float
    pieces: list[Piece]
    tokens: list[int]  # the requests that got one


@dataclass
class Log:
    """What `opennpu.sglang_integration.launch_log` has written."""

    program: Path
    arrivals: dict[int, float] = field(default_factory=dict)  # by request
    launches: list[Launch] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, since: float = 0.0) -> "Log":
        """Leaves out requests from before `since`, and launches of these alone. Raises LogError, OSError."""
        entries = [json.loads(line) for line in _whole_lines(path)]
        if not entries or not entries[0]["program"]:
            raise LogError(f"{path}: no launch of a compiled model")
        log = cls(Path(entries[0]["program"]))
        for entry in entries[1:]:
            if "request" in entry:
                if entry["arrival"] >= since:
                    log.arrivals[entry["request"]] = entry["arrival"]
            elif any(request in log.arrivals for request, *_ in entry["pieces"]):
                log.launches.append(_launch(entry))
        if not log.arrivals:
            raise LogError(f"{path}: no request")
        if not log.launches:
            raise LogError(f"{path}: no launch for a request")
        return log


def _whole_lines(path: Path) -> Iterator[str]:
    """The last line may be cut off where the server was killed."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield line


def _launch(entry: dict) -> Launch:
    pieces = [(new, length) for _, new, length, _ in entry["pieces"]]
    tokens = [request for request, _, _, gave in entry["pieces"] if gave]
    return Launch(entry["phase"], entry["launched"], entry["done"], pieces, tokens)


@dataclass(frozen=True)
class Side:
    """One of the two: times of tokens in seconds, and the time that launches took, by phase."""

    ttft: list[float]
    inter_token: list[float]
    busy: dict[str, float]

    def to_dict(self, tokens: int) -> dict:
        seconds = sum(self.busy.values())
        return {
            "ttft": summary(self.ttft),
            "inter_token": summary(self.inter_token),
            "busy_seconds": seconds,
            "output_tokens_per_second": tokens / seconds,
        }


@dataclass(frozen=True)
class ServingReport:
    chip: str
    requests: int
    output_tokens: int
    timed: int  # shapes of launches
    phases: dict[str, Phase]  # estimates
    measured: Side
    estimated: Side

    def to_dict(self) -> dict:
        phases = {
            name: phase.to_dict() | {"measured_seconds": self.measured.busy[name]}
            for name, phase in self.phases.items()
            if phase.launches
        }
        return {
            "chip": self.chip,
            "requests": self.requests,
            "output_tokens": self.output_tokens,
            "shapes_timed": self.timed,
            "phases": phases,
            "measured": self.measured.to_dict(self.output_tokens),
            "estimated": self.estimated.to_dict(self.output_tokens),
        }


def report(log: Log, target: str | None = None) -> ServingReport:
    """Times the launches. Raises what TimedModel, which `target` is for, and its launches do."""
    model = TimedModel(Container.open(log.program), target)
    times = LaunchTimes(model, CONTEXT_STEP)
    phases, seconds = {name: Phase() for name in PHASES}, []
    for launch in log.launches:
        prompts, decodes = alike(launch, times.most)
        timed = times.of(prompts, decodes)
        phases[launch.phase].add(sum(new for new, _ in launch.pieces), timed)
        seconds.append(timed.seconds)
    busy = {name: phase.seconds for name, phase in phases.items()}
    estimated = _side(log, list(accumulate(seconds, initial=0.0)), busy, estimated=True)
    measured = _side(
        log, [0.0, *(launch.done for launch in log.launches)], _measured_busy(log), estimated=False
    )
    count = sum(len(launch.tokens) for launch in log.launches)
    return ServingReport(
        model.chip.name, len(log.arrivals), count, len(times.known), phases, measured, estimated
    )


def alike(launch: Launch, most: int) -> tuple[list[Piece], list[int]]:
    """Pieces of prompts, and lengths of running sequences, of the launch that this one is timed as.

    As many prompts share its new tokens and their contexts evenly; the tokens of all together are
    rounded up to an eighth of their highest power of two, and to 16. most: the longest context.
    """
    prompts = [piece for piece in launch.pieces if launch.phase != "decode" and piece[0] > 1]
    decodes = [length for new, length in launch.pieces if launch.phase == "decode" or new == 1]
    if not prompts:
        return [], decodes
    total = sum(new for new, _ in prompts)
    step = max(1 << max(total.bit_length() - 4, 0), 16)
    share = min(max(-(-total // step) * step // len(prompts), 1), most)
    context = -(-sum(length for _, length in prompts) // len(prompts))
    return [(share, max(share, context))] * len(prompts), decodes


def _measured_busy(log: Log) -> dict[str, float]:
    """Seconds with launches under way, by phase; one counts from the end of the one before."""
    busy, before = dict.fromkeys(PHASES, 0.0), 0.0
    for launch in log.launches:
        busy[launch.phase] += max(launch.done - max(launch.launched, before), 0.0)
        before = max(before, launch.done)
    return busy


def _side(log: Log, ends: list[float], busy: dict[str, float], estimated: bool) -> Side:
    """ends[k + 1]: when launch k ended; ends[0]: the beginning."""
    ttft, between, last = [], [], {}
    for index, launch in enumerate(log.launches):
        for request in launch.tokens:
            if request in last:
                between.append(ends[index + 1] - ends[last[request] + 1])
            elif request in log.arrivals:
                arrival = log.arrivals[request]
                start = ends[_first_after(log.launches, arrival)] if estimated else arrival
                ttft.append(ends[index + 1] - start)
            last[request] = index
    return Side(ttft, between, busy)


def _first_after(launches: list[Launch], time: float) -> int:
    """The launches come in the order of their times."""
    return bisect.bisect_left(launches, time, key=lambda launch: launch.launched)


def table(found: ServingReport) -> Iterator[str]:
    """For people, line by line."""
    yield f"{found.requests} requests, {found.output_tokens} tokens. What this machine took, and the estimate"
    yield f"for the same launches on {found.chip} by its timing model ({found.timed} shapes timed):"
    yield ""
    yield _row("", "launches", "tokens", "measured", "estimated", "tokens/s", "of roofline")
    for name, phase in found.phases.items():
        if phase.launches:
            rates, measured = phase.to_dict(), found.measured.busy[name]
            times = f"{measured:.2f} s", f"{phase.seconds:.3f} s", f"{rates['tokens_per_second']:.0f}"
            yield _row(name, str(phase.launches), str(phase.tokens), *times, f"{rates['roofline_ratio']:.0%}")
    yield ""
    yield _row("", "", "", "measured", "estimated")
    sides = [side.to_dict(found.output_tokens) for side in (found.measured, found.estimated)]
    for key, title in (("ttft", "time to first token"), ("inter_token", "inter-token latency")):
        for statistic in ("mean", "p99"):
            if sides[0][key]:
                values = (f"{side[key][statistic] * 1e3:.2f} ms" for side in sides)
                yield f"{title}, {statistic}".ljust(32) + "".join(f"{value:>12}" for value in values)
    rates = (f"{side['output_tokens_per_second']:.1f} /s" for side in sides)
    yield "output tokens".ljust(32) + "".join(f"{rate:>12}" for rate in rates)


def _row(title: str, *values: str) -> str:
    widths = (11, 11, 12, 12, 12, 13)
    return (title.ljust(10) + "".join(v.rjust(w) for v, w in zip(values, widths, strict=False))).rstrip()
