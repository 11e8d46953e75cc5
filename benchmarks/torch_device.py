"""What a call costs on the device "opennpu", beside PyTorch's CPU device."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

DEVICE = "opennpu"
HEADS, HEAD_DIM, TOKENS = 8, 64, 2048


@dataclass(frozen=True)
class Figure:
    """Median seconds of a call: until it returns, and until its result is there."""

    name: str
    device: str
    enqueue_s: float
    total_s: float


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.manual_seed(0)
    figures = [
        Figure(name, device, *_measure(call, device, args.rounds))
        for device in ("cpu", DEVICE)
        for name, call in _calls(device)
    ]
    figures.append(Figure("launch of a cached program", DEVICE, *_measure(_launch(), DEVICE, args.rounds)))
    if args.json:
        args.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    print(_table(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torch_device.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    return parser


@torch.no_grad()
def _calls(device: str) -> Iterator[tuple[str, Callable[[], object]]]:
    a, b = torch.randn(16, device=device), torch.randn(16, device=device)
    yield "add, 16 elements", lambda: a + b
    x = torch.randn(1, 4096, dtype=torch.bfloat16).to(device)
    w = torch.randn(4096, 4096, dtype=torch.bfloat16).to(device)
    yield "linear, 1×4096×4096 bf16", lambda: F.linear(x, w)
    q, k, v = (torch.randn(1, HEADS, TOKENS, HEAD_DIM, dtype=torch.bfloat16).to(device) for _ in range(3))
    name = f"flash attention, {TOKENS} tokens, {HEADS}×{HEAD_DIM} bf16, causal"
    yield name, lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _launch() -> Callable[[], object]:
    """A program that is known, in place: no output to allocate."""
    a, b = torch.randn(16, device=DEVICE), torch.randn(16, device=DEVICE)
    return lambda: a.add_(b)


def _measure(call: Callable[[], object], device: str, rounds: int) -> tuple[float, float]:
    """Medians over the rounds, or over as many as take ten seconds."""
    wait = torch.opennpu.synchronize if device == DEVICE else lambda: None
    for _ in range(3):
        call()
    wait()
    enqueued, finished = [], []
    deadline = time.perf_counter() + 10
    while len(enqueued) < rounds and (not enqueued or time.perf_counter() < deadline):
        start = time.perf_counter()
        call()
        enqueued.append(time.perf_counter() - start)
        wait()
        finished.append(time.perf_counter() - start)
    return statistics.median(enqueued), statistics.median(finished)


def _table(figures: list[Figure]) -> str:
    lines = ["| call | device | returns after | done after |", "|---|---|---|---|"]
    lines += [f"| {f.name} | {f.device} | {_show(f.enqueue_s)} | {_show(f.total_s)} |" for f in figures]
    return "\n".join(lines)


def _show(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    raise SystemExit(main())
