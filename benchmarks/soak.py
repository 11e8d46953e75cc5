"""Requests without a pause to a server, many of which are called off: it must not leak, grow or err."""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from server_process import (
    Answer,
    Request,
    Server,
    abort,
    client,
    generate,
    hang_up,
)

ROOT = Path(__file__).parents[1]
FATES = {"answered": 70, "aborted": 15, "hung up": 15}
"""What becomes of a request → in how many of a hundred cases."""
WARM_UP = 0.3  # of the time, before memory must be steady
COUNTERS = ("sglang:evicted_tokens_total", "sglang:num_retracted_requests_total")
"""Of SGLang; not there before they have counted something."""
MOST_GROWTH = 0.01  # of the memory, from the end of the warm-up to the end
EXAMPLES = """examples:
  python benchmarks/soak.py                 ten minutes of the demo's model
  python benchmarks/soak.py --minutes 1 --pool 4096 --json soak.json"""


@dataclass(frozen=True)
class Sample:
    seconds: float
    resident: int  # bytes of host memory of all the server's processes; the virtual chip's memory is there
    chip: int  # bytes of chip memory in use
    used_tokens: int  # places of the KV pool


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    requests = catalogue(args.model, args.text, args.seed)
    with tempfile.TemporaryDirectory() as folder, _server(args, Path(folder) / "server.log") as server:
        print(f"{len(requests)} requests one by one", flush=True)
        expected = server.ask(requests, concurrency=1)
        before = _idle(server)
        soak = Soak(server, requests, expected, args)
        asyncio.run(soak.run())
        after = _idle(server)
        metrics = server.metrics()
        evicted, retracted = (int(metrics.get(name, 0)) for name in COUNTERS)
    growth = {name: growth_of(soak.samples, name) for name in ("resident", "chip")}
    problems = soak.problems + [
        f"{name} memory grows: {share:.2%} after the warm-up"
        for name, share in growth.items()
        if share > MOST_GROWTH
    ]
    if (before.used_tokens, after.used_tokens) != (0, 0):
        problems.append("the idle server holds pages")
    if after.chip > steady(soak.samples)[0].chip:  # buffers of launches grow with the first large batches
        problems.append("the idle server holds more chip memory than after the warm-up")
    _report(args, soak, growth, (before, after), evicted, retracted, problems)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="soak.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo = ROOT / "build" / "demo" / "smollm2"
    parser.add_argument(
        "--model", type=Path, default=demo, help="Hugging Face directory; default: the demo's"
    )
    parser.add_argument("--text", type=Path, default=default_text(), help="what prompts are cut from")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--concurrency", type=int, default=32, help="requests under way at any time")
    parser.add_argument(
        "--pool", type=int, default=4096, help="tokens of the KV pool; few, so that it is full"
    )
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures and all samples")
    return parser


def default_text() -> Path:
    return ROOT / "tools" / "baseline" / "declaration.txt"


def _server(args: argparse.Namespace, log: Path) -> Server:
    return Server(
        args.model,
        log,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_total_tokens=args.pool,
        page_size=args.page_size,
        chunked_prefill_size=256,
        max_running_requests=args.concurrency,
        schedule_conservativeness=0.1,  # so that some are retracted
    )


def catalogue(model: Path, text: Path, seed: int, count: int = 48) -> list[Request]:
    """Prompts of 3 to 600 tokens, half of them with one beginning, for answers of 8 to 64 tokens."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(model, local_files_only=True)(text.read_text()).input_ids
    choose, shared = random.Random(seed), tokens[:200]
    made = []
    for i in range(count):
        length = round(3 * 200 ** choose.random())
        prefix = shared[: length // 2] if i % 2 else []
        start = choose.randrange(len(tokens))
        rest = [tokens[(start + k) % len(tokens)] for k in range(length - len(prefix))]
        made.append(Request(prefix + rest, choose.randint(8, 64)))
    return made


class Soak:
    """The load. `fates` counts requests by what became of them, `problems` tells what went wrong."""

    def __init__(self, server: Server, requests: list[Request], expected: list[Answer], args):
        self.server, self.args = server, args
        self.known = list(zip(requests, expected, strict=True))
        self.choose = random.Random(args.seed)
        self.fates: Counter[str] = Counter()
        self.tokens = 0
        self.problems: list[str] = []
        self.samples: list[Sample] = []

    async def run(self) -> None:
        self.start = time.monotonic()
        self.end = self.start + 60 * self.args.minutes
        async with client() as session:
            sampler = asyncio.create_task(self._sample())
            await asyncio.gather(*(self._client(session) for _ in range(self.args.concurrency)))
            sampler.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampler

    async def _client(self, session) -> None:
        while time.monotonic() < self.end and not self.problems:
            (fate,) = self.choose.choices(list(FATES), FATES.values())
            request, expected = self.choose.choice(self.known)
            url = self.server.url
            if fate == "answered":
                got = await generate(session, url, request)
                self.tokens += len(request.prompt) + len(got.tokens)
                if (got.tokens, got.logprobs) != (expected.tokens, expected.logprobs):
                    self.problems.append(f"a wrong answer to a prompt of {len(request.prompt)} tokens")
            else:
                leave = abort if fate == "aborted" else hang_up
                await leave(session, url, request, self.choose.expovariate(0.5))
            self.fates[fate] += 1

    async def _sample(self) -> None:
        """About a hundred times, from another thread, as reading takes a while."""
        while True:
            self.samples.append(await asyncio.to_thread(sample, self.server, self.start))
            done = self.samples[-1].seconds / 60 / self.args.minutes
            print(f"\r{done:5.0%}  {sum(self.fates.values())} requests", end="", file=sys.stderr, flush=True)
            await asyncio.sleep(0.6 * self.args.minutes)


def sample(server: Server, start: float) -> Sample:
    tree = psutil.Process(server.process.pid)
    resident = 0
    for process in (tree, *tree.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            resident += process.memory_info().rss
    metrics = server.metrics()
    return Sample(
        time.monotonic() - start,
        resident,
        int(metrics["opennpu:memory_used_bytes"]),
        server.used_tokens(),
    )


def _idle(server: Server) -> Sample:
    """After one request, which updates the metrics, and with an empty radix cache."""
    server.ask([Request([1, 2, 3], 2)], concurrency=1)
    server.flush()
    return sample(server, time.monotonic())


def steady(samples: list[Sample]) -> list[Sample]:
    """Those behind the warm-up."""
    return [s for s in samples if s.seconds >= WARM_UP * samples[-1].seconds]


def growth_of(samples: list[Sample], name: str) -> float:
    """By how much it grows from the end of the warm-up on, as a share of it: what is sure of the slope.

    Least squares; the slope less two of its standard errors, as memory goes up and down with the load.
    """
    counted = steady(samples)
    x, y = [s.seconds for s in counted], [float(getattr(s, name)) for s in counted]
    if len(counted) < 3 or len(set(y)) == 1:  # nothing is sure of a line through two points
        return 0.0
    slope, intercept = statistics.linear_regression(x, y)
    spread = sum((b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 2)
    error = (spread / sum((a - statistics.fmean(x)) ** 2 for a in x)) ** 0.5
    return max(0.0, (slope - 2 * error) * (x[-1] - x[0])) / statistics.fmean(y)


def _report(
    args,
    soak: Soak,
    growth: dict,
    idle: tuple[Sample, Sample],
    evicted: int,
    retracted: int,
    problems: list[str],
) -> None:
    resident = [s.resident / 2**20 for s in soak.samples]
    rows = {
        "requests": ", ".join(f"{count} {fate}" for fate, count in sorted(soak.fates.items())),
        "tokens of the answered": f"{soak.tokens}",
        "wrong answers": f"{sum('wrong' in p for p in soak.problems)}",
        "evicted tokens, retracted requests": f"{evicted}, {retracted}",
        "used tokens of the pool, idle before and after": ", ".join(str(s.used_tokens) for s in idle),
        "chip memory, idle before and after, MiB": ", ".join(f"{s.chip / 2**20:.1f}" for s in idle),
        "host memory, MiB: first, most, last": f"{resident[0]:.0f}, {max(resident):.0f}, {resident[-1]:.0f}",
        "growth after the warm-up: host, chip": f"{growth['resident']:.2%}, {growth['chip']:.2%}",
    }
    print(f"\n| {args.minutes:g} minutes, {args.concurrency} at once | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")
    for problem in problems:
        print(f"soak.py: error: {problem}", file=sys.stderr)
    if args.json:
        samples = [asdict(s) for s in soak.samples]
        args.json.write_text(json.dumps(rows | {"problems": problems, "samples": samples}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
