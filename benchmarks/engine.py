"""Speed of a compiled language model on the native engine, beside what the machine can do at most."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from opennpu.compiler.image import build_image
from opennpu.dialects.isa.encoding import Instruction, encode
from opennpu.runtime.container import Container
from opennpu.runtime.device import Device
from opennpu.runtime.extents import Extent
from opennpu.runtime.language_model import CachedSequence, Chunk, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program

ROOT = Path(__file__).parents[1]
PAGE_SIZE = 16  # tokens
CONTEXT = 128  # tokens of each sequence before decoding
PREFILL = 512  # tokens
BATCHES = (1, 8, 16)
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Measurement:
    """One kind of launch, of `tokens` tokens; seconds is the median."""

    name: str
    tokens: int
    seconds: float
    best_seconds: float
    spread: float  # interquartile range over the median
    tokens_per_s: float
    gb_per_s: float  # of HBM traffic as the compiler counts it, without reads of keys and values
    gflop_per_s: float  # of matrix products, without attention
    of_bandwidth: float  # ratio to what the probe reads
    of_multiply_add: float  # ratio to the probe's multiply-adds, bf16 where the CPU has them, else f32


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    threads = args.threads or len(os.sched_getaffinity(0))
    torch.manual_seed(0)
    program = Program.load(Device(Container.open(args.program).signature.chip, threads=threads), args.program)
    limits = [_probe(threads)]
    overhead = _launch_overhead(program.device)
    launches = _measure(program, args.rounds)
    limits.append(_probe(threads))
    best = {name: max(limit[name] for limit in limits) for name in limits[0]}
    result = {
        "machine": _machine(threads),
        "limits": best,
        "launch_overhead_us": overhead * 1e6,
        "launches": [asdict(_measurement(program, best, *launch)) for launch in launches],
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(_table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="engine.py", description=__doc__)
    demo = ROOT / "build" / "demo" / "model.npu"
    parser.add_argument("program", nargs="?", type=Path, default=demo, help="default: the demo's model.npu")
    parser.add_argument("--threads", type=int, help="worker threads; one for each CPU without it")
    parser.add_argument("--rounds", type=int, default=15, help="launches of each kind; the median counts")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    return parser


# ---- measuring


def _measure(program: Program, rounds: int) -> list[tuple[str, int, int, list[float]]]:
    """(name, tokens, rows of logits, seconds of each round) of every kind of launch."""
    tokens = max(BATCHES) * (CONTEXT + rounds + 1 + PAGE_SIZE) + PREFILL
    pool = PagePool(program.device, program.signature.kv, PAGE_SIZE, -(-tokens // PAGE_SIZE))
    model = LanguageModel(program, pool)
    decodes = [(f"decode, batch {b}", b, b, _decode(model, b, rounds)) for b in BATCHES]
    return [*decodes, (f"prefill {PREFILL}", PREFILL, 1, _prefill(model, max(3, rounds // 3)))]


def _launch_overhead(device: Device, rounds: int = 2000) -> float:
    """Seconds from the launch of a program that only halts to the end of the synchronisation; the median."""
    empty = device.load(build_image(device.chip, [], encode([Instruction("halt", {})]), []))
    stream = device.stream()

    def launch() -> None:
        stream.launch(empty, [])
        stream.synchronize()

    return statistics.median(_time(launch, rounds))


def _decode(model: LanguageModel, batch: int, rounds: int) -> list[float]:
    sequences = [CachedSequence() for _ in range(batch)]
    for sequence in sequences:
        model.forward([Chunk(sequence, _random(model, CONTEXT))])
    times = _time(lambda: model.forward([Chunk(s, _random(model, 1)) for s in sequences]), rounds)
    for sequence in sequences:
        model.release(sequence)
    return times


def _prefill(model: LanguageModel, rounds: int) -> list[float]:
    def launch() -> None:
        sequence = CachedSequence()
        model.forward([Chunk(sequence, _random(model, PREFILL))])
        model.release(sequence)

    return _time(launch, rounds)


def _random(model: LanguageModel, count: int) -> list[int]:
    return torch.randint(model.program.signature.model["vocab_size"], (count,)).tolist()


def _time(launch: Callable[[], object], rounds: int) -> list[float]:
    launch()  # pages and caches are touched
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        launch()
        times.append(time.perf_counter() - start)
    return times


def _measurement(
    program: Program, limits: dict[str, float], name: str, tokens: int, rows: int, times: list[float]
) -> Measurement:
    seconds = statistics.median(times)
    quarters = statistics.quantiles(times, n=4)
    symbols = {"T": tokens, "B": rows, "R": rows, "P": -(-CONTEXT // PAGE_SIZE)}
    totals = (
        sum(Extent.parse(kernel[cost]).evaluate(symbols) for kernel in program.signature.report)
        for cost in ("bytes", "flops")
    )
    moved, computed = (total / seconds / 1e9 for total in totals)
    return Measurement(
        name,
        tokens,
        seconds,
        min(times),
        (quarters[2] - quarters[0]) / seconds,
        tokens / seconds,
        moved,
        computed,
        moved / limits["read_gb_per_s"],
        computed / (limits["bf16_gflop_per_s"] or limits["f32_gflop_per_s"]),
    )


def _probe(threads: int) -> dict[str, float]:
    """Figures of probe.cpp, which says how they are measured; compiled for this CPU when it changed."""
    source, binary = Path(__file__).with_name("probe.cpp"), ROOT / "build" / "benchmarks" / "probe"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        binary.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-pthread"]
        subprocess.run([os.environ.get("CXX", "g++"), *flags, source, "-o", binary], check=True)
    return json.loads(subprocess.run([binary, str(threads)], check=True, capture_output=True).stdout)


def _machine(threads: int) -> dict:
    cpu = dict(
        [part.strip() for part in line.partition(":")[::2]]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    flags = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "features": [feature for feature in FEATURES if feature in flags],
        "cpus": os.cpu_count(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 1),
    }


def _table(result: dict) -> str:
    machine, limits = result["machine"], result["limits"]
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['features'])}; "
        f"{machine['threads']} threads; load average at the end {machine['load_average']}",
        f"limits: read {limits['read_gb_per_s']:.1f} GB/s, f32 {limits['f32_gflop_per_s']:.0f} GFLOP/s, "
        + (f"bf16 {limits['bf16_gflop_per_s']:.0f} GFLOP/s" if limits["bf16_gflop_per_s"] else "no bf16"),
        f"launch of an empty program: {result['launch_overhead_us']:.1f} us",
        "",
        "| launch | median ms | best ms | spread | tok/s | GB/s | of read | GFLOP/s | of multiply-add |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for m in result["launches"]:
        lines.append(
            f"| {m['name']} | {m['seconds'] * 1e3:.1f} | {m['best_seconds'] * 1e3:.1f} "
            f"| {m['spread']:.0%} | {m['tokens_per_s']:.1f} "
            f"| {m['gb_per_s']:.1f} | {m['of_bandwidth']:.0%} "
            f"| {m['gflop_per_s']:.1f} | {m['of_multiply_add']:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
