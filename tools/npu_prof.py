"""npu-prof: one launch of a compiled model on the chip, as a page to look at and as a trace for Perfetto."""

import argparse
import json
import sys

from opennpu.runtime.container import Container
from opennpu.runtime.timing import Scope, TimedModel
from opennpu.tools.arguments import count, output_file
from opennpu.tools.npu_sim import ERRORS, add_launch_arguments, timed_launch
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-prof model.npu --seqs 8 --context 2048 -o decode.html
  npu-prof model.npu --tokens 512 --cores 0-3 --perfetto prefill.json
  npu-prof model.npu --window 1000000:1200000 -o steady.html
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if not args.output and not args.perfetto:
        _parser().error("give -o report.html, or --perfetto trace.json")
    from opennpu.tools.profile.names import instruction_names
    from opennpu.tools.profile.page import page
    from opennpu.tools.profile.perfetto import trace

    try:
        model = TimedModel(Container.open(args.program), args.target)
        scope = Scope(args.cores, *args.window, args.slices)
        report, tokens = timed_launch(model, args, scope)
        instructions = instruction_names(model.image)
        if args.output:
            write_text(
                page(report, args.program.name, _launch(args, tokens), tokens, instructions), args.output
            )
        if args.perfetto:
            write_text(json.dumps(trace(report, instructions, str(args.program))), args.perfetto)
    except ERRORS as error:
        print(f"npu-prof: error: {error}", file=sys.stderr)
        return 1
    recording = report.recording
    end = int(recording.slices["end"].max()) if len(recording.slices) else 0
    cut = f", cut off at cycle {end:,}: choose a --window, or more --slices" if recording.truncated else ""
    print(f"{report.cycles:,} cycles; {len(recording.slices):,} instructions recorded{cut}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-prof",
        description="Shows where the time of one launch goes: a page (HTML) and a trace (Perfetto).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_launch_arguments(parser)
    parser.add_argument("-o", "--output", type=output_file, help="the page, one HTML file")
    parser.add_argument("--perfetto", type=output_file, help="the trace, for ui.perfetto.dev")
    parser.add_argument(
        "--cores", type=_cores, default=(0,), help="whose instructions to record: 0,2-5; default: 0"
    )
    parser.add_argument(
        "--window",
        type=_window,
        default=(0, 2**62),
        metavar="BEGIN:END",
        help="cycles to record; default: all",
    )
    parser.add_argument(
        "--slices", type=count, default=100_000, help="instructions to record at most; default: 100000"
    )
    return parser


def _cores(text: str) -> tuple[int, ...]:
    cores: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return tuple(cores)


def _window(text: str) -> tuple[int, int]:
    begin, colon, end = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text} is not BEGIN:END")
    return int(begin or 0), int(end or 2**62)


def _launch(args: argparse.Namespace, tokens: int | None) -> str:
    """What was launched, in words."""
    if tokens is None:
        return ", ".join(f"{name} = {value}" for name, value in args.symbol) or "least symbols"
    context = args.context or -(-tokens // args.seqs)
    sequences = f"{args.seqs} sequence{'s' if args.seqs > 1 else ''}"
    return f"{tokens} new token{'s' if tokens > 1 else ''} of {sequences}, context {context}"


if __name__ == "__main__":
    sys.exit(main())
