"""Whether the benchmarks have become slower than what was recorded on a machine of this kind.

Each benchmark runs several times; its figures are fractions of limits measured alongside (gating.py).
`record` writes their medians and the noise between the runs to benchmarks/results/; `check` fails, with a
table, where a median has fallen further than the noise explains.
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

HERE = Path(__file__).parent
ROOT = HERE.parent
DEMO = ROOT / "build" / "demo"
FORMAT = 1
COMMANDS = {
    "engine": ["engine.py", DEMO / "model.npu"],
    "torch_device": ["torch_device.py"],
    "chip": ["chip.py", f"{DEMO / 'model.pt'}:npu1-lite"],
    "serving": ["serving.py", "--rounds", "1", "--servers", "opennpu", "in-tree f32"],
}
DEFAULT = ("engine", "torch_device", "chip")
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    path = args.results / f"{machine_class(machine())}.json"
    if args.command == "record":
        record(path, args)
        return 0
    return check(path, args)


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


def record(path: Path, args: argparse.Namespace) -> None:
    """Writes the benchmarks' figures to the file; those of others that it holds stay."""
    known = _read(path)["benchmarks"] if path.exists() else {}
    for name in args.benchmarks:
        figures = gating.record(_runs(name, args.runs))
        known[name] = {
            "runs": args.runs,
            "load_average": round(os.getloadavg()[0], 1),
            "figures": {figure: asdict(recorded) for figure, recorded in figures.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"format": FORMAT, "machine": machine(), "benchmarks": known}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"recorded in {path}")


def check(path: Path, args: argparse.Namespace) -> int:
    """0 when no figure has regressed, 1 when one has, 2 when there is nothing to compare with."""
    known = _read(path)["benchmarks"] if path.exists() else {}
    if missing := [name for name in args.benchmarks if name not in known]:
        print(f"gate.py: {path} has no baseline of {', '.join(missing)}: `gate.py record`", file=sys.stderr)
        return 2
    verdicts = []
    for name in args.benchmarks:
        recorded = {figure: gating.Recorded(**r) for figure, r in known[name]["figures"].items()}
        verdicts += gating.compare(name, recorded, _runs(name, args.runs))
    print(gating.table(verdicts))
    failed = [verdict.name for verdict in verdicts if verdict.fails]
    if failed:
        print(f"\nslower than recorded, or gone: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _read(path: Path) -> dict:
    content = json.loads(path.read_text())
    if content["format"] != FORMAT:
        raise SystemExit(f"gate.py: {path} has the format {content['format']}, not {FORMAT}: record again")
    return content


def _runs(name: str, count: int) -> list[gating.Fractions]:
    return [gating.FRACTIONS[name](_run(name, i, count)) for i in range(count)]


def _run(name: str, number: int, count: int) -> dict | list:
    """The benchmark's JSON."""
    print(f"[{time.strftime('%H:%M:%S')}] {name}, run {number + 1} of {count}", file=sys.stderr, flush=True)
    script, *arguments = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, HERE / script, *arguments, "--json", path]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
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
