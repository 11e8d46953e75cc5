"""npu-sim: what launches of a compiled model would take on the chip, and where the time goes."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from opennpu.runtime.chip import ChipError
from opennpu.runtime.container import Container, ContainerError
from opennpu.runtime.device import NpuError
from opennpu.runtime.program import ProgramError
from opennpu.runtime.signature import SignatureError
from opennpu.runtime.timing import TimedModel, TimingReport
from opennpu.runtime.traffic import Policy, Served, TraceError, read_trace, serve
from opennpu.tools.arguments import count
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-sim model.npu --tokens 64                      prefill of 64 tokens
  npu-sim model.npu --seqs 16 --context 512          decode of 16 sequences
  npu-sim model.npu --trace requests.jsonl           {"arrival": 0.5, "prompt": 100, "output": 20} a line
  npu-sim model.npu --target my_chip.toml --json
"""

ERRORS = (ChipError, ContainerError, SignatureError, NpuError, ProgramError, TraceError, OSError)

CAUSES = {
    "issue": "issue",
    "load": "DMA load",
    "store": "DMA store",
    "matrix": "matrix flag",
    "vector": "vector flag",
    "accumulator": "accumulator space",
    "barrier": "barrier",
    "unit": "its unit",
    "cores": "other cores",
    "scalar_load": "scalar load",
    "queue_full": "full queue",
}
"""What a queue or the sequencer waits for, in words."""


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        model = TimedModel(Container.open(args.program), args.target)
        if args.trace:
            lines, data = _traffic(model, args)
        else:
            lines, data = _launch(model, args)
    except ERRORS as error:
        print(f"npu-sim: error: {error}", file=sys.stderr)
        return 1
    write_text(json.dumps(data, indent=1) + "\n" if args.json else "\n".join(lines) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-sim",
        description="Tells what a launch or a trace of requests would take on the chip, and where time goes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_launch_arguments(parser)
    parser.add_argument("--json", action="store_true", help="everything, for machines")
    parser.add_argument(
        "--ops", type=count, default=10, help="how many of the most expensive ops to print; default: 10"
    )
    trace = parser.add_argument_group("a trace of requests to a language model")
    default = Policy()
    trace.add_argument("--trace", type=Path, help="requests, a line of JSON each (docs/timing.md)")
    trace.add_argument(
        "--chunk", type=count, default=default.chunk, help="prompt tokens of a launch; default: 512"
    )
    trace.add_argument(
        "--max-batch", type=count, default=default.max_batch, help="sequences at a time; default: 64"
    )
    trace.add_argument("--mixed", action="store_true", help="prompts and running sequences in one launch")
    trace.add_argument("--kv-tokens", type=count, help="size of the KV pool; default: what HBM leaves")
    trace.add_argument(
        "--context-step",
        type=count,
        default=default.context_step,
        help="time launches with contexts rounded up to this; 1: each as it is; default: 256",
    )
    return parser


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """The program, the chip and the shape of one launch, for `timed_launch`."""
    parser.add_argument("program", type=Path, help="model.npu, made by npu-compile; weights are not needed")
    parser.add_argument(
        "--target", help="chip with the costs to use: a name or a TOML file; default: the program's"
    )
    text = parser.add_argument_group("a launch of a language model")
    text.add_argument("--tokens", type=count, help="new tokens of the launch; one a sequence without it")
    text.add_argument("--seqs", type=count, default=1, help="sequences that share the new tokens")
    text.add_argument("--context", type=count, help="tokens of each sequence afterwards; default: the new")
    other = parser.add_argument_group("a launch of any other model")
    other.add_argument("--symbol", type=_symbol, action="append", default=[], metavar="NAME=VALUE")


def timed_launch(model: TimedModel, args: argparse.Namespace, scope=None) -> tuple[TimingReport, int | None]:
    """The launch that the arguments ask for, and its new tokens."""
    if not model.is_language_model:
        return model.zeros(dict(args.symbol), scope), None
    tokens = args.tokens or args.seqs
    context = args.context or -(-tokens // args.seqs)
    return model.batch(tokens, args.seqs, context, scope), tokens


def _symbol(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, int(value)


# ---- one launch


def _launch(model: TimedModel, args: argparse.Namespace) -> tuple[Iterator[str], dict]:
    report, tokens = timed_launch(model, args)
    rate = {"tokens_per_second": tokens / report.seconds} if tokens else {}
    return _report_lines(report, tokens, args.ops), {**report.to_dict(), **rate}


def _report_lines(report: TimingReport, tokens: int | None, ops: int) -> Iterator[str]:
    yield _chip_line(report.chip)
    rate = f", {tokens / report.seconds:,.1f} tokens/s ({tokens} a launch)" if tokens else ""
    yield f"{report.cycles:,} cycles, {1e3 * report.seconds:.4f} ms{rate}"
    shared = f", {report.shared_bytes / 1e6:,.2f} more by sharing" if report.shared_bytes else ""
    yield (
        f"HBM {report.hbm_bytes / 1e6:,.2f} MB ({report.bytes_loaded / 1e6:,.2f} loaded{shared}, "
        f"{report.bytes_stored / 1e6:,.2f} stored), {report.hbm_gbps:,.1f} GB/s"
    )
    yield (
        f"roofline: HBM {report.hbm_bound:,.0f} cycles, matrix {report.matrix_bound:,.0f} cycles; "
        f"ratio {report.roofline_ratio:.3f}"
    )
    yield ""
    yield from _engine_lines(report)
    yield ""
    yield f"{'cycles':>14} {'':>6} {'roofline':>8} {'HBM MB':>10} {'GMAC':>9}  op"
    for op in report.most_expensive(ops):
        yield (
            f"{op['cycles']:>14,} {op['cycles'] / max(report.cycles, 1):>6.1%} "
            f"{report.op_bound(op) / max(op['cycles'], 1):>8.2f} {op['hbm_bytes'] / 1e6:>10,.2f} "
            f"{op['macs'] / 1e9:>9,.3f}  {op['source'] or '(start and end of the program)'}"
        )


def _engine_lines(report: TimingReport) -> Iterator[str]:
    yield f"{'engine':<10} {'busy':>7}   waits for"
    for engine, share in report.utilisation.items():
        slower = {
            "HBM contention": report.hbm_contention.get(engine),
            "bank conflicts": report.bank_conflicts[engine],
        }
        notes = "".join(f"; of busy {part:.1%} {why}" for why, part in slower.items() if part)
        yield f"{engine:<10} {share:>7.1%}   {_causes(report.stalls[engine])}{notes}"
    waits = report.stalls["sequencer"]
    yield f"{'sequencer':<10} {1 - sum(waits.values()):>7.1%}   {_causes(waits)}"


def _chip_line(chip) -> str:
    return f"{chip.name}: {chip.cores} cores at {chip.clock_mhz} MHz, HBM {chip.timing.hbm_gbps} GB/s"


def _causes(causes: dict[str, float]) -> str:
    """`barrier 12.3%, DMA load 4.5%`, largest first, without what does not show."""
    shown = sorted(((share, cause) for cause, share in causes.items() if share >= 0.0005), reverse=True)
    return ", ".join(f"{CAUSES[cause]} {share:.1%}" for share, cause in shown) or "nothing"


# ---- a trace


def _traffic(model: TimedModel, args: argparse.Namespace) -> tuple[Iterator[str], dict]:
    from tqdm import tqdm

    if not model.is_language_model:
        raise TraceError(f"{args.program} is no language model: only those serve a trace of requests")
    requests = read_trace(args.trace)
    policy = Policy(args.chunk, args.max_batch, args.mixed, args.kv_tokens, args.context_step)
    with tqdm(total=len(requests), desc="npu-sim", unit="request", leave=False, disable=None) as bar:
        served = serve(model, requests, policy, lambda finished: bar.update(finished - bar.n))
    return _served_lines(model, served), {"chip": model.chip.name, **served.to_dict()}


def _served_lines(model: TimedModel, served: Served) -> Iterator[str]:
    data = served.to_dict()
    yield _chip_line(model.chip)
    yield (
        f"{served.requests} requests, {served.prompt_tokens:,} prompt and {served.output_tokens:,} output "
        f"tokens in {served.makespan:.3f} s: {data['output_tokens_per_second']:,.1f} output tokens/s, "
        f"{data['total_tokens_per_second']:,.1f} in all"
    )
    yield ""
    yield f"{'ms':<20} {'mean':>10} {'p50':>10} {'p90':>10} {'p99':>10} {'max':>10}"
    titles = {"ttft": "time to first token", "inter_token": "inter-token latency", "latency": "whole request"}
    for key, title in titles.items():
        if data[key]:
            yield f"{title:<20} " + " ".join(f"{1e3 * value:>10.3f}" for value in data[key].values())
    yield ""
    columns = ("launches", "seconds", "tokens/s", "HBM GB/s", "bound s", "roofline")
    yield f"{'phase':<8} " + " ".join(f"{column:>10}" for column in columns)
    for name, phase in data["phases"].items():
        yield (
            f"{name:<8} {phase['launches']:>10,} {phase['seconds']:>10.3f} "
            f"{phase['tokens_per_second']:>10,.1f} {phase['hbm_gbps']:>10,.1f} "
            f"{phase['roofline_seconds']:>10.3f} {phase['roofline_ratio']:>10.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
