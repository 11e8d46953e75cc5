"""npu-fuzz: random graphs through PyTorch, the interpreters and the engines, compared."""

import argparse
import faulthandler
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from opennpu.tools.arguments import count, output_folder

_EPILOG = """examples:
  npu-fuzz --graphs 1000
  npu-fuzz --seed 5000 --minutes 30 -o findings
  npu-fuzz --replay findings/case-5123.json        one case again, as it was saved
  npu-fuzz --limit 60                              a graph that takes longer than a minute hangs

Every graph has a seed of its own: --seed 5123 --graphs 1 is graph 5123 alone. What a graph is checked for,
and how far results may be off, is told in docs/validation.md.
"""

BATCH = 25  # graphs a process: a crash of the compiler costs the rest of them
LIMIT = 300.0  # seconds that a check may take: the slowest takes a few on an idle machine


@dataclass
class Outcome:
    """What became of a graph: "ok", "refused" with the reason, or the kind of a finding and its text."""

    seed: int
    kind: str
    text: str = ""
    case: str = ""
    final: bool = True  # else what is known while the graph is made smaller


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.replay:
        return _replay(args.replay, args.limit)
    if args.graphs is None and args.minutes is None:
        args.graphs = 200
    counts, refused = Counter(), Counter()
    with _bar(args) as bar:
        for outcome in run(args.seed, args.graphs, args.minutes, not args.as_found, args.limit):
            counts[outcome.kind] += 1
            bar.update()
            bar.set_postfix_str(", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
            if outcome.kind == "refused":
                refused[outcome.text] += 1
            elif outcome.kind != "ok":
                bar.write(_told(outcome, args.output))
    print(f"{counts.total()} graphs: " + ", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    for reason, n in refused.most_common(args.reasons):
        print(f"  refused {n}: {reason}")
    return int(any(kind not in ("ok", "refused") for kind in counts))


def run(
    seed: int, graphs: int | None, minutes: float | None, smaller: bool = True, limit: float = LIMIT
) -> Iterator[Outcome]:
    """The outcomes of graphs `seed`, `seed` + 1, …, each in turn, until there are enough or time is over.

    They run in processes of their own: what ends the process is a finding too, a crash, and so is a check of
    more than `limit` seconds, a hang.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else None
    end = None if graphs is None else seed + graphs
    while (end is None or seed < end) and (deadline is None or time.monotonic() < deadline):
        last = seed + BATCH if end is None else min(seed + BATCH, end)
        for outcome in _batch(seed, last, deadline, smaller, limit):
            yield outcome
            seed = outcome.seed + 1


def _batch(seed: int, end: int, deadline: float | None, smaller: bool, limit: float) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    found = None  # of graph `seed`
    with tempfile.NamedTemporaryFile("r", prefix="npu-fuzz-", errors="replace") as trace:
        worker = context.Process(target=_work, args=(seed, end, deadline, smaller, limit, trace.name, send))
        worker.start()
        send.close()
        try:
            while True:
                found = receive.recv()
                if found.final:
                    yield found
                    seed, found = found.seed + 1, None
        except EOFError:
            worker.join()
        finally:
            if worker.is_alive():
                worker.terminate()
                worker.join()
        if worker.exitcode:
            yield replace(found, final=True) if found else _died(seed, worker.exitcode, trace.read())


def _died(seed: int, status: int, trace: str) -> Outcome:
    """The finding of a process that ended at graph `seed`; `trace`: where, as faulthandler tells it."""
    from opennpu.tools.fuzzing.case import random_case

    kind = "hang" if trace.startswith("Timeout") else "crash"
    text = f"{kind}: the process ended with {status}\n{trace}".rstrip()
    return Outcome(seed, kind, text, random_case(seed).text())


def _work(seed: int, end: int, deadline: float | None, smaller: bool, limit: float, trace: str, send) -> None:
    import torch

    torch.set_num_threads(1)
    with open(trace, "w") as file:
        faulthandler.enable(file)
        while seed < end and (deadline is None or time.monotonic() < deadline):
            for outcome in outcomes_of(seed, smaller, partial(_watch, limit, file)):
                send.send(outcome)
            seed += 1
    send.close()


def _watch(limit: float, file) -> None:
    """Ends the process, with a trace in the file, unless called again within `limit` seconds."""
    faulthandler.dump_traceback_later(limit, exit=True, file=file)


def outcome_of(seed: int, smaller: bool = True) -> Outcome:
    """Graph `seed`, made smaller where something is wrong with it."""
    *_, outcome = outcomes_of(seed, smaller)
    return outcome


def outcomes_of(
    seed: int, smaller: bool = True, watch: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """The same, with what is known of a finding whenever the graph becomes smaller.

    `watch` is called before every check.
    """
    from opennpu.tools.fuzzing.case import random_case
    from opennpu.tools.fuzzing.check import Refused, check
    from opennpu.tools.fuzzing.minimise import minimised

    watch()
    case = random_case(seed)
    try:
        finding = check(case)
    except Refused as error:
        yield Outcome(seed, "refused", str(error))
        return
    if finding is None:
        yield Outcome(seed, "ok")
        return
    outcome = Outcome(seed, finding.kind, str(finding), case.text(), final=False)
    yield outcome
    for less, found in minimised(case, finding, watch) if smaller else ():
        outcome = replace(outcome, text=str(found), case=less.text())
        yield outcome
    yield replace(outcome, final=True)


def _told(outcome: Outcome, folder: Path | None) -> str:
    text = f"graph {outcome.seed}: {outcome.text}\n"
    if folder is None:
        return text + outcome.case
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"case-{outcome.seed}.json"
    path.write_text(outcome.case, encoding="utf-8")
    return f"{text}  npu-fuzz --replay {path}"


def _replay(path: Path, limit: float) -> int:
    from opennpu.tools.fuzzing.case import Case
    from opennpu.tools.fuzzing.check import Refused, check

    _watch(limit, sys.__stderr__)
    try:
        finding = check(Case.load(path))
    except (OSError, ValueError, TypeError) as error:
        print(f"npu-fuzz: error: {path}: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"refused: {error}")
        return 0
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(finding or "all agree")
    return int(finding is not None)


def _bar(args: argparse.Namespace):
    from tqdm import tqdm

    return tqdm(total=args.graphs, desc="npu-fuzz", unit="graph", disable=None, leave=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-fuzz",
        description="Compiles random graphs and compares what every level computes with PyTorch in float64.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first graph; default: 0")
    parser.add_argument("--graphs", type=count, help="how many; default: 200, or as many as --minutes allows")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument(
        "-o", "--output", type=output_folder, help="folder for what is found; default: it is printed"
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds that checking a graph may take; default: 300"
    )
    parser.add_argument("--as-found", action="store_true", help="do not make what is found smaller")
    parser.add_argument("--reasons", type=count, default=10, help="reasons of refusal to print; default: 10")
    parser.add_argument("--replay", type=Path, metavar="CASE.json", help="check one saved case")
    return parser


if __name__ == "__main__":
    sys.exit(main())
