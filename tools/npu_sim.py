"""npu-sim: what a launch of a compiled model would take on the chip, and where the time goes."""

import argparse
import json
import sys
from pathlib import Path

from opennpu.runtime.chip import ChipError
from opennpu.runtime.container import Container, ContainerError
from opennpu.runtime.device import NpuError
from opennpu.runtime.program import ProgramError
from opennpu.runtime.signature import SignatureError
from opennpu.runtime.timing import TimedModel, TimingReport
from opennpu.tools.arguments import count
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-sim model.npu --tokens 64                      prefill of 64 tokens
  npu-sim model.npu --seqs 16 --context 512          decode of 16 sequences
  npu-sim model.npu --target my_chip.toml --json
"""

ERRORS = (ChipError, ContainerError, SignatureError, NpuError, ProgramError, OSError)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        model = TimedModel(Container.open(args.program), args.target)
        tokens = args.tokens or args.seqs
        if model.is_language_model:
            report = model.batch(tokens, args.seqs, args.context or -(-tokens // args.seqs))
        else:
            report = model.zeros(dict(args.symbol))
    except ERRORS as error:
        print(f"npu-sim: error: {error}", file=sys.stderr)
        return 1
    new = tokens if model.is_language_model else None
    if args.json:
        rate = {"tokens_per_second": new / report.seconds} if new else {}
        write_text(json.dumps({**report.to_dict(), **rate}, indent=1) + "\n")
    else:
        write_text("\n".join(_lines(report, new, args.ops)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-sim",
        description="Tells what a launch of a program would take on the chip, and where the time goes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", type=Path, help="model.npu, made by npu-compile; weights are not needed")
    parser.add_argument(
        "--target", help="chip with the costs to use: a name or a TOML file; default: the program's"
    )
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument(
        "--ops", type=count, default=10, help="how many of the most expensive ops to print; default: 10"
    )
    text = parser.add_argument_group("language models")
    text.add_argument("--tokens", type=count, help="new tokens of the launch; one a sequence without it")
    text.add_argument("--seqs", type=count, default=1, help="sequences that share the new tokens")
    text.add_argument("--context", type=count, help="tokens of each sequence afterwards; default: the new")
    other = parser.add_argument_group("any other model")
    other.add_argument("--symbol", type=_symbol, action="append", default=[], metavar="NAME=VALUE")
    return parser


def _symbol(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, int(value)


def _lines(report: TimingReport, tokens: int | None, ops: int):
    chip = report.chip
    yield f"{chip.name}: {chip.cores} cores at {chip.clock_mhz} MHz, HBM {chip.timing.hbm_gbps} GB/s"
    rate = f", {tokens / report.seconds:,.1f} tokens/s ({tokens} a launch)" if tokens else ""
    yield f"{report.cycles:,} cycles, {1e3 * report.seconds:.4f} ms{rate}"
    yield (
        f"HBM {report.hbm_bytes / 1e6:,.2f} MB ({report.bytes_loaded / 1e6:,.2f} loaded, "
        f"{report.bytes_stored / 1e6:,.2f} stored), {report.hbm_gbps:,.1f} GB/s"
    )
    yield (
        f"roofline: HBM {report.hbm_bound:,.0f} cycles, matrix {report.matrix_bound:,.0f} cycles; "
        f"ratio {report.roofline_ratio:.3f}"
    )
    yield ""
    yield f"{'engine':<10} {'busy':>7}   waits for"
    for engine, share in report.utilisation.items():
        causes = {**report.stalls[engine]}
        contention = report.hbm_contention.get(engine)
        note = f"; of busy {contention:.1%} HBM contention" if contention else ""
        yield f"{engine:<10} {share:>7.1%}   {_causes(causes)}{note}"
    yield f"{'sequencer':<10} {1 - sum(report.stalls['sequencer'].values()):>7.1%}   " + _causes(
        report.stalls["sequencer"]
    )
    yield ""
    yield f"{'cycles':>14} {'':>6} {'HBM MB':>10} {'GMAC':>9}  op"
    for op in report.most_expensive(ops):
        share = op["cycles"] / max(report.cycles, 1)
        yield (
            f"{op['cycles']:>14,} {share:>6.1%} {op['hbm_bytes'] / 1e6:>10,.2f} "
            f"{op['macs'] / 1e9:>9,.3f}  {op['source'] or '(start and end of the program)'}"
        )


def _causes(causes: dict[str, float]) -> str:
    """`barrier 12.3%, load 4.5%`, largest first, without what does not show."""
    shown = sorted(((share, cause) for cause, share in causes.items() if share >= 0.0005), reverse=True)
    return ", ".join(f"{cause} {share:.1%}" for share, cause in shown) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
