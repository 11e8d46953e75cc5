"""A recorded launch as a Chrome JSON trace, for ui.perfetto.dev and chrome://tracing.

One process a core with a track for each engine, and one for the chip with the ops; flags are flow arrows.
Times are microseconds of the chip's clock. The format: "Trace Event Format" (Google, 2016).
"""

from collections.abc import Iterator

from opennpu.runtime.timing import ENGINES, TimingReport
from opennpu.tools.profile.names import op_name

TRACKS = (*ENGINES, "matrix: stationary tiles")
_SHADOW = len(ENGINES)


def trace(report: TimingReport, instructions: list[str], title: str) -> dict:
    """`report` has a recording; `instructions` are the program's, by name."""
    return {
        "traceEvents": list(_events(report, instructions)),
        "displayTimeUnit": "ns",
        "otherData": {
            "program": title,
            "chip": report.chip.name,
            "clock_mhz": report.chip.clock_mhz,
            "cycles": report.cycles,
            "truncated": report.recording.truncated,
        },
    }


def _events(report: TimingReport, instructions: list[str]) -> Iterator[dict]:
    recording, clock = report.recording, report.chip.clock_mhz
    names = [op_name(op["source"]) for op in report.ops]
    cores = sorted({int(core) for core in recording.slices["core"]})
    chip = report.chip.cores  # the process beside the cores
    yield from _names(chip, f"{report.chip.name}: ops", {0: "from barrier to barrier"}, -1)
    for core in cores:
        yield from _names(core, f"core {core}", dict(enumerate(TRACKS)), core)
    for location, begin, end in recording.stretches.tolist():
        yield _slice(names[location], "op", chip, 0, begin / clock, (end - begin) / clock, {})
    for core, queue, shadow, index, location, start, end, done in recording.slices.tolist():
        track = _SHADOW if shadow else queue
        facts = {"op": names[location], "instruction": index, "cycles": end - start, "completed": done}
        yield _slice(
            instructions[index], ENGINES[queue], core, track, start / clock, (end - start) / clock, facts
        )
    yield from _arrows(recording, clock)


def _names(process: int, name: str, tracks: dict[int, str], order: int) -> Iterator[dict]:
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": order}}
    for track, title in tracks.items():
        at = {"ph": "M", "pid": process, "tid": track}
        yield {**at, "name": "thread_name", "args": {"name": title}}
        yield {**at, "name": "thread_sort_index", "args": {"sort_index": track}}


def _slice(name: str, cat: str, pid: int, tid: int, ts: float, dur: float, facts: dict) -> dict:
    return {"ph": "X", "name": name, "cat": cat, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": facts}


def _arrows(recording, clock: int) -> Iterator[dict]:
    """From the end of the slice before the set_flag to the start of the one after the wait_flag."""
    rows = recording.slices.tolist()
    for number, (source, target) in enumerate(recording.arrows.tolist()):
        for phase, index, time in (("s", source, 6), ("f", target, 5)):
            core, queue, shadow = rows[index][:3]
            at = rows[index][time] / clock
            yield {
                "ph": phase, "name": "flag", "cat": "flag", "id": number, "pid": core,
                "tid": _SHADOW if shadow else queue, "ts": at, **({"bp": "e"} if phase == "f" else {}),
            }  # fmt: skip
