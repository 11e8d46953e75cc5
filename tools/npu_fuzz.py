"""npu-fuzz: random graphs through PyTorch, the interpreters and the engines, compared."""

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opennpu.tools.arguments import count

_EPILOG = """examples:
  npu-fuzz --graphs 1000
  npu-fuzz --seed 5000 --minutes 30 -o findings
  npu-fuzz --replay findings/case-5123.json        one case again, as it was saved

Every graph has a seed of its own: --seed 5123 --graphs 1 is graph 5123 alone. What a graph is checked for,
and how far results may be off, is told in docs/validation.md.
"""

BATCH = 25  # graphs a process: a crash of the compiler costs the rest of them


@dataclass
class Outcome:
    """What became of a graph: "ok", "refused" with the reason, or the kind of a finding and its text."""

    seed: int
    kind: str
    text: str = ""
    case: str = ""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.replay:
        return _replay(args.replay)
    if args.graphs is None and args.minutes is None:
        args.graphs = 200
    counts, refused = Counter(), Counter()
    with _bar(args) as bar:
        for outcome in run(args.seed, args.graphs, args.minutes, not args.as_found):
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


def run(seed: int, graphs: int | None, minutes: float | None, smaller: bool = True) -> Iterator[Outcome]:
    """The outcomes of graphs `seed`, `seed` + 1, …, each in turn, until there are enough or time is over.

    They run in processes of their own: what ends the process is a finding too, a crash.
    """
    deadline = time.monotonic() + 60 * minutes if minutes else None
    end = None if graphs is None else seed + graphs
    while (end is None or seed < end) and (deadline is None or time.monotonic() < deadline):
        last = seed + BATCH if end is None else min(seed + BATCH, end)
        for outcome in _batch(seed, last, deadline, smaller):
            yield outcome
            seed = outcome.seed + 1


def _batch(seed: int, end: int, deadline: float | None, smaller: bool) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(seed, end, deadline, smaller, send))
    worker.start()
    send.close()
    try:
        while True:
            outcome = receive.recv()
            yield outcome
            seed = outcome.seed + 1
    except EOFError:
        worker.join()
    finally:
        if worker.is_alive():
            worker.terminate()
            worker.join()
    if worker.exitcode:
        from opennpu.tools.fuzzing.case import random_case

        text = f"the process ended with {worker.exitcode}"
        yield Outcome(seed, "crash", text, random_case(seed).text())


def _work(seed: int, end: int, deadline: float | None, smaller: bool, send) -> None:
    import torch

    torch.set_num_threads(1)
    while seed < end and (deadline is None or time.monotonic() < deadline):
        send.send(outcome_of(seed, smaller))
        seed += 1
    send.close()


def outcome_of(seed: int, smaller: bool = True) -> Outcome:
    """Graph `seed`, made smaller where something is wrong with it."""
    from opennpu.tools.fuzzing.case import random_case
    from opennpu.tools.fuzzing.check import Refused, check
    from opennpu.tools.fuzzing.minimise import minimise

    case = random_case(seed)
    try:
        finding = check(case)
    except Refused as error:
        return Outcome(seed, "refused", str(error))
    if finding is None:
        return Outcome(seed, "ok")
    if smaller:
        case = minimise(case, finding)
        finding = check(case) or finding
    return Outcome(seed, finding.kind, str(finding), case.text())


def _told(outcome: Outcome, folder: Path | None) -> str:
    text = f"graph {outcome.seed}: {outcome.text}\n"
    if folder is None:
        return text + outcome.case
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"case-{outcome.seed}.json"
    path.write_text(outcome.case, encoding="utf-8")
    return f"{text}  npu-fuzz --replay {path}"


def _replay(path: Path) -> int:
    from opennpu.tools.fuzzing.case import Case
    from opennpu.tools.fuzzing.check import Refused, check

    try:
        finding = check(Case.load(path))
    except (OSError, ValueError, TypeError) as error:
        print(f"npu-fuzz: error: {path}: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"refused: {error}")
        return 0
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
    parser.add_argument("-o", "--output", type=Path, help="folder for what is found; default: it is printed")
    parser.add_argument("--as-found", action="store_true", help="do not make what is found smaller")
    parser.add_argument("--reasons", type=count, default=10, help="reasons of refusal to print; default: 10")
    parser.add_argument("--replay", type=Path, metavar="CASE.json", help="check one saved case")
    return parser


if __name__ == "__main__":
    sys.exit(main())
