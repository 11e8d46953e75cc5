"""Figures of the benchmarks as fractions of a limit, and what counts as a regression: the rules of gate.py.

A fraction is of something measured in the same run, so that a slower hour of the machine slows both: what the
probe reads or multiplies, the same call on PyTorch's CPU device, SGLang's own CPU engine, the roofline of the
timing model. More is better.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Fractions = dict[str, float]
"""By the name of the figure."""

SLACK = {"chip": 0.001}
"""Benchmark → the least loss that counts, of the recorded figure: the timing model has no noise."""
DEFAULT_SLACK = 0.05
NOISE_FACTOR = 1.5
"""A median has to fall this many times the range of the recorded runs."""

# ---- fractions of each benchmark's JSON


def of_engine(result: dict) -> Fractions:
    """A kind of launch: of its limit."""
    return {f"engine: {launch['name']}": launch["of_limit"] for launch in result["launches"]}


def of_torch_device(result: list[dict]) -> Fractions:
    """A call: PyTorch's time on the CPU over the device's."""
    cpu = {figure["name"]: figure["total_s"] for figure in result if figure["device"] == "cpu"}
    return {
        f"torch: {figure['name']}": cpu[figure["name"]] / figure["total_s"]
        for figure in result
        if figure["device"] != "cpu" and figure["name"] in cpu
    }


def of_chip(result: list[dict]) -> Fractions:
    """A launch by the timing model: of its roofline."""
    return {f"chip: {row['model']} on {row['chip']}, {row['launch']}": row["of_roofline"] for row in result}


def of_serving(result: dict) -> Fractions:
    """Tokens a second at a concurrency: over those of SGLang's CPU engine; the median of the rounds."""
    speeds: dict[tuple, list[float]] = {}
    for run in result["runs"]:
        speeds.setdefault((run["server"], run["concurrency"]), []).append(run["output_tokens_per_s"])
    return {
        f"serving: concurrency {concurrency}, over {baseline}": statistics.median(
            ours / theirs for ours, theirs in zip(speeds["opennpu", concurrency], figures, strict=True)
        )
        for (baseline, concurrency), figures in speeds.items()
        if baseline.startswith("in-tree")
    }


FRACTIONS = {"engine": of_engine, "torch_device": of_torch_device, "chip": of_chip, "serving": of_serving}

# ---- what they are fractions of, in one run


def limits_of_engine(result: dict) -> dict[str, float]:
    return result["limits"]


def limits_of_torch_device(result: list[dict]) -> dict[str, float]:
    return {f"{f['name']}, PyTorch, s": f["total_s"] for f in result if f["device"] == "cpu"}


def limits_of_chip(result: list[dict]) -> dict[str, float]:
    names = ((row, f"{row['model']} on {row['chip']}, {row['launch']}, roofline, s") for row in result)
    return {name: row["seconds"] * row["of_roofline"] for row, name in names}


def limits_of_serving(result: dict) -> dict[str, float]:
    speeds: dict[str, list[float]] = {}
    for run in result["runs"]:
        if run["server"].startswith("in-tree"):
            name = f"{run['server']}, concurrency {run['concurrency']}, tokens/s"
            speeds.setdefault(name, []).append(run["output_tokens_per_s"])
    return {name: statistics.median(values) for name, values in speeds.items()}


LIMITS = {
    "engine": limits_of_engine,
    "torch_device": limits_of_torch_device,
    "chip": limits_of_chip,
    "serving": limits_of_serving,
}

# ---- what is recorded, and the comparison


@dataclass(frozen=True)
class Recorded:
    """A figure of the baseline: the median of its runs, and their range over it."""

    fraction: float
    noise: float

    @property
    def tells_nothing(self) -> bool:
        """Whether the noise is such that no loss could be told from it."""
        return NOISE_FACTOR * self.noise >= 1

    def lowest(self, benchmark: str) -> float:
        """What a median may fall to."""
        allowed = max(NOISE_FACTOR * self.noise, SLACK.get(benchmark, DEFAULT_SLACK))
        return self.fraction * (1 - min(allowed, 1))


@dataclass(frozen=True)
class Verdict:
    name: str
    recorded: float | None  # fraction
    lowest: float | None
    now: float | None
    state: str  # "ok", "REGRESSED", "MISSING", "faster" (record again), "new"

    @property
    def fails(self) -> bool:
        return self.state.isupper()


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure, over runs that all have it."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def record(runs: Sequence[Fractions]) -> dict[str, Recorded]:
    """Of two runs or more. Raises ValueError when they do not have the same figures."""
    if len(runs) < 2:
        raise ValueError("the noise is that between runs: record at least 2")
    if any(run.keys() != runs[0].keys() for run in runs):
        raise ValueError("the runs have different figures")
    recorded = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        middle = statistics.median(values)
        recorded[name] = Recorded(middle, (max(values) - min(values)) / middle)
    return recorded


def compare(benchmark: str, recorded: Mapping[str, Recorded], runs: Sequence[Fractions]) -> list[Verdict]:
    """The medians of the runs against the baseline."""
    verdicts = []
    for name, known in recorded.items():
        values = [run[name] for run in runs if name in run]
        lowest, now = known.lowest(benchmark), statistics.median(values) if values else None
        state = "MISSING" if now is None else "REGRESSED" if now < lowest else "ok"
        if state == "ok" and now > 2 * known.fraction - lowest:
            state = "faster"
        verdicts.append(Verdict(name, known.fraction, lowest, now, state))
    new = dict.fromkeys(name for run in runs for name in run if name not in recorded)
    for name in new:
        now = statistics.median(run[name] for run in runs if name in run)
        verdicts.append(Verdict(name, None, None, now, "new"))
    return verdicts


def table(verdicts: Sequence[Verdict]) -> str:
    """Markdown."""
    lines = ["| figure | recorded | lowest | now | |", "|---|---|---|---|---|"]
    for v in verdicts:
        numbers = " | ".join("–" if x is None else f"{x:.3f}" for x in (v.recorded, v.lowest, v.now))
        lines.append(f"| {v.name} | {numbers} | {v.state} |")
    return "\n".join(lines)
