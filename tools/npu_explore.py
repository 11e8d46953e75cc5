"""npu-explore: a model on many chips, for those who design them."""

import argparse
import json
import sys
from pathlib import Path

from opennpu.compiler.paused_gc import paused_gc
from opennpu.tools.arguments import output_file
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-explore model.pt --target npu1 --sweep hbm_gbps=900,1800,3600 --sweep cores=8,16,32
  npu-explore model.pt --sweep spm_kib=256,512,1024 --launch 1:1:512 --launch 512:1:512 --svg spm.svg
  npu-explore model.pt --target npu1 --json          the chip itself: what limits it
"""

LAUNCHES = ("1:1:2048", "8:8:2048", "64:64:2048", "2048:1:2048")


@paused_gc()
def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    from opennpu.compiler.frontend.archive import load_archive
    from opennpu.dialects.diagnostics import CompileError
    from opennpu.runtime.chip import Chip, ChipError
    from opennpu.runtime.device import NpuError
    from opennpu.runtime.program import ProgramError
    from opennpu.tools.exploration.sweep import Launch, changed, combinations, explore
    from torch_mlir import ir
    from tqdm import tqdm

    failures = (CompileError, ChipError, NpuError, ProgramError, ir.MLIRError)
    try:
        archive, base = load_archive(args.archive), Chip.load(args.target)
        launches = [Launch.parse(text) for text in args.launch or LAUNCHES]
        sweep = dict(args.sweep)
        changed(base, {key: values[0] for key, values in sweep.items()})
    except (CompileError, ChipError, OSError, ValueError) as error:
        print(f"npu-explore: error: {error}", file=sys.stderr)
        return 1
    choices = combinations(sweep)
    total = len(choices) * len(launches)
    with tqdm(total=total, desc="npu-explore", unit="launch", leave=False, disable=None) as bar:
        outcomes = list(explore(archive, base, choices, launches, args.gains, failures, bar.update))
    if args.svg:
        write_text(_picture(outcomes, base, launches), args.svg)
    text = json.dumps(_data(outcomes, base), indent=1) if args.json else "\n".join(_table(outcomes, launches))
    write_text(text + "\n")
    return 0 if any(outcome.launches for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-explore",
        description="Compiles a language model for every chip of a sweep and times launches on each.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="model.pt, made by npu-export; weights are not needed")
    parser.add_argument(
        "--target", default="npu1-lite", help="the chip to change: a name or a TOML file; default: npu1-lite"
    )
    parser.add_argument(
        "--sweep", type=_sweep, action="append", default=[], metavar="KEY=A,B,…",
        help="values of a key of the chip file, e.g. cores, spm_kib, hbm_gbps; several make all combinations",
    )  # fmt: skip
    parser.add_argument(
        "--launch", action="append", metavar="TOKENS:SEQS:CONTEXT",
        help=f"a launch to time; default: {', '.join(LAUNCHES)}",
    )  # fmt: skip
    parser.add_argument(
        "--no-gains", dest="gains", action="store_false",
        help="leave out what limits a launch, which takes eight timings",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument("--svg", type=output_file, help="a picture: speed over size, with the Pareto front")
    return parser


def _sweep(text: str) -> tuple[str, list[int]]:
    key, equals, values = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not KEY=A,B,…")
    return key, [int(value) for value in values.split(",")]


def _label(changes: dict[str, int]) -> str:
    return " ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"


def _values(changes: dict[str, int]) -> str:
    """`3600 / 4096`, for the keys that a picture names once."""
    return " / ".join(map(str, changes.values())) or "as it is"


def _table(outcomes, launches):
    width = max(len(str(title)) for title in (*launches, *(_label(o.changes) for o in outcomes)))
    for launch in launches:
        heads = f"{'ms':>10} {'tokens/s':>11} {'HBM':>6} {'matrix':>7} {'roofline':>9}"
        yield f"{launch!s:<{width}} {heads}  twice as good would save"
        for outcome in outcomes:
            if timed := outcome.launches.get(launch):
                yield f"{_label(outcome.changes):<{width}} {_figures(timed)}  {_gains(timed)}"
        yield ""
    yield from (f"{_label(o.changes)}: failed: {o.failure}" for o in outcomes if o.failure)


def _figures(timed) -> str:
    report = timed.report
    return (
        f"{1e3 * report.seconds:>10.3f} {timed.tokens_per_second:>11,.1f} "
        f"{report.hbm_bound / report.cycles:>6.0%} {report.matrix_bound / report.cycles:>7.0%} "
        f"{report.roofline_ratio:>9.2f}"
    )


def _gains(timed) -> str:
    """The resources that would save at least a percent, most first."""
    shown = sorted(((gain, name) for name, gain in timed.gains.items() if gain >= 0.01), reverse=True)
    return ", ".join(f"{name} {gain:.0%}" for gain, name in shown)


def _data(outcomes, base) -> dict:
    chips = [
        {
            "changes": outcome.changes,
            "failure": outcome.failure or None,
            "launches": {str(launch): timed.to_dict() for launch, timed in outcome.launches.items()},
        }
        for outcome in outcomes
    ]
    return {"target": base.name, "chips": chips}


def _picture(outcomes, base, launches) -> str:
    """Size is the mean of what is swept, relative to the chip that is changed."""
    from opennpu.tools.exploration.pareto import Point, picture

    def size(changes: dict[str, int]) -> float:
        own = {**vars(base.timing), **vars(base)}
        ratios = [value / own[key] for key, value in changes.items() if own[key]]
        return sum(ratios) / len(ratios) if ratios else 1.0

    panels = {}
    for launch in launches:
        points = [
            Point(_values(o.changes), size(o.changes), o.launches[launch].tokens_per_second)
            for o in outcomes
            if launch in o.launches
        ]
        if points:
            panels[str(launch)] = points
    keys = " / ".join(outcomes[0].changes) or base.name
    return picture(panels, f"size of what is swept, {base.name} = 1", f"tokens/s of {keys}")


if __name__ == "__main__":
    sys.exit(main())
