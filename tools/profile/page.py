"""A recorded launch as one HTML page: the data, and a script that draws it (page.html)."""

from opennpu.runtime.timing import ENGINES, TOTALS, TimingReport
from opennpu.tools.npu_sim import CAUSES
from opennpu.tools.page.template import filled
from opennpu.tools.profile.names import op_name

MOST_SLICES = 20_000
"""Of the recording that go into the page."""


def page(report: TimingReport, title: str, launch: str, tokens: int | None, instructions: list[str]) -> str:
    """`report` has a recording. The page needs no network."""
    data = {
        "title": title,
        "launch": launch,
        "tokens": tokens,
        "chip": _chip(report),
        "totals": _totals(report),
        "causes": CAUSES,
        "engines": ENGINES,
        "shares": {engine: _shares(report, engine) for engine in ENGINES},
        "cores": [
            [core[engine]["busy"] / max(report.cycles, 1) for engine in ENGINES] for core in report.cores
        ],
        "ops": [_op(report, op) for op in report.ops],
        "stretches": report.recording.stretches.tolist(),
        "instructions": instructions,
        **_slices(report),
    }
    return filled("profile/page.html", data)


def _chip(report: TimingReport) -> dict:
    chip = report.chip
    return {
        "name": chip.name,
        "cores": chip.cores,
        "clock_mhz": chip.clock_mhz,
        "hbm_gbps": chip.timing.hbm_gbps,
        "tflops": report.matrix_peak_flops / 1e12,
    }


def _totals(report: TimingReport) -> dict:
    return {name: getattr(report, name) for name in (*TOTALS, "hbm_bytes", "instructions")}


def _shares(report: TimingReport, engine: str) -> dict[str, float]:
    """Of the time: what an engine did and waited for; all together 1."""
    slower = {
        "HBM contention": report.hbm_contention.get(engine, 0.0),
        "bank conflicts": report.bank_conflicts[engine],
    }
    work = report.utilisation[engine] - sum(slower.values())
    return {"work": work, **slower, **{CAUSES[c]: share for c, share in report.stalls[engine].items()}}


def _op(report: TimingReport, op: dict) -> dict:
    out = {key: op[key] for key in ("source", "cycles", "stretches", "hbm_bytes", "macs")}
    engines = {}
    for engine in ENGINES:
        times = op[engine]
        slower = times["hbm_contention"] + times["bank_conflicts"]
        engines[engine] = {
            "work": times["busy"] - slower,
            "HBM contention": times["hbm_contention"],
            "bank conflicts": times["bank_conflicts"],
            **{CAUSES[cause]: cycles for cause, cycles in times["stalls"].items()},
        }
    return {**out, "name": op_name(op["source"]), "bound": report.op_bound(op), "by": engines}


def _slices(report: TimingReport) -> dict:
    """Of each core [lane, start, end, location, instruction]; the last lane is of stationary tiles."""
    recording = report.recording
    rows: dict[int, list] = {}
    for core, queue, shadow, index, location, start, end, _ in recording.slices[:MOST_SLICES].tolist():
        rows.setdefault(core, []).append([len(ENGINES) if shadow else queue, start, end, location, index])
    return {"slices": rows, "truncated": recording.truncated or len(recording.slices) > MOST_SLICES}
