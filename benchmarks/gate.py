"""Whether the benchmarks have become slower than what was recorded on a machine of this kind.

Each benchmark runs several times; its figures are fractions of limits measured alongside (gating.py).
`record` writes their medians, the noise between the runs and the limits to benchmarks/results/; `check`
fails, with a table, where a median has fallen further than the noise explains.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import gating
from launches import LAUNCHES

HERE = Path(__file__).parent
ROOT = HERE.parent
DEMO = ROOT / "build" / "demo"
FORMAT = 1
ENGINE_LAUNCHES = (  # all but the long one
    launch.name for launch in LAUNCHES if launch.context < 4096 or launch.tokens == 1
)
COMMANDS = {
    "engine": ["engine.py", "--rounds", "3", "--peers", "--launches", *ENGINE_LAUNCHES],
    "torch_device": ["torch_device.py"],
    "chip": ["chip.py", f"{DEMO / 'model.pt'}:npu1-lite"],
    "serving": ["serving.py", "--rounds", "1", "--servers", "opennpu", "in-tree f32"],
}
DEFAULT = ("engine", "torch_device", "chip")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command == "record" and args.runs < 2:
        parser.error("the noise is that between runs: record at least 2")
    path = args.results / f"{machine_class(machine())}.json"
    try:
        return record(path, args) if args.command == "record" else check(path, args)
    except GateError as error:
        print(f"gate.py: error: {error}", file=sys.stderr)
        return 2


class GateError(RuntimeError):
    """What keeps the gate from an answer; the text says what to do."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  gate.py record --runs 5\n  gate.py check\n  gate.py check --benchmarks serving",
    )
    parser.add_argument("command", choices=["record", "check"])
    parser.add_argument("--benchmarks", nargs="+", choices=COMMANDS, default=DEFAULT, metavar="NAME")
    parser.add_argument("--runs", type=int, default=3, help="of each benchmark; medians count")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the baselines")
    return parser


def record(path: Path, args: argparse.Namespace) -> int:
    """Writes the benchmarks' figures to the file; those of others that it holds stay."""
    known = _read(path)["benchmarks"] if path.exists() else {}
    for name in args.benchmarks:
        results = _runs(name, args.runs)
        figures = gating.record([gating.FRACTIONS[name](result) for result in results])
        for figure in [figure for figure, recorded in figures.items() if recorded.tells_nothing]:
            print(f"{figure}: too noisy to tell a loss, not recorded", file=sys.stderr)
            del figures[figure]
        known[name] = {
            "runs": args.runs,
            "load_average": round(os.getloadavg()[0], 1),
            "limits": gating.medians([gating.LIMITS[name](result) for result in results]),
            "figures": {figure: asdict(recorded) for figure, recorded in figures.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "machine": machine(), "benchmarks": known}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"recorded in {path}")
    return 0


def check(path: Path, args: argparse.Namespace) -> int:
    """0 when no figure has regressed, 1 when one has. GateError when there is nothing to compare with."""
    known = _read(path)["benchmarks"] if path.exists() else {}
    if missing := [name for name in args.benchmarks if name not in known]:
        raise GateError(f"{path} has no baseline of {', '.join(missing)}: `gate.py record`")
    verdicts = []
    for name in args.benchmarks:
        recorded = {figure: gating.Recorded(**r) for figure, r in known[name]["figures"].items()}
        fractions = [gating.FRACTIONS[name](result) for result in _runs(name, args.runs)]
        verdicts += gating.compare(name, recorded, fractions)
    print(gating.table(verdicts))
    failed = [verdict.name for verdict in verdicts if verdict.fails]
    if failed:
        print(f"\nslower than recorded, or gone: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _read(path: Path) -> dict:
    content = json.loads(path.read_text())
    if content["format"] != FORMAT:
        raise GateError(f"{path} has the format {content['format']}, not {FORMAT}: record again")
    return content


def _runs(name: str, count: int) -> list:
    """What the benchmark writes as JSON, of each run."""
    return [_run(name, i, count) for i in range(count)]


def _run(name: str, number: int, count: int) -> dict | list:
    """The benchmark's JSON."""
    print(f"[{time.strftime('%H:%M:%S')}] {name}, run {number + 1} of {count}", file=sys.stderr, flush=True)
    script, *arguments = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, HERE / script, *arguments, "--json", path]
        if status := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise GateError(f"{script} ended with status {status}; it tells why above")
        return json.loads(path.read_text())


def machine() -> dict:
    """What decides which baseline is to be compared with."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    found = {key: re.search(rf"^{key}\s*:\s*(.*)$", cpuinfo, re.M) for key in ("model name", "flags")}
    model, flags = (match[1] if match else "" for match in found.values())
    return {
        "cpu": model.strip() or os.uname().machine,
        "features": [feature for feature in FEATURES if feature in flags.split()],
        "cpus": len(os.sched_getaffinity(0)),
    }


def machine_class(of: dict) -> str:
    """A file name."""
    text = "-".join([of["cpu"], f"{of['cpus']} cpus", *of["features"]])
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
