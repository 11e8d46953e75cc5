"""Speed of a language model on the native engine, beside what the machine can do at most and other engines.

Rounds go through all launches; the limits are measured beside every one, and medians count. Keys and values
of contexts are random.

  engine.py                                          SmolLM2-135M's shape, with random weights
  engine.py --model Qwen3-0.6B --json out.json
  engine.py --model build/demo/smollm2 --launches "decode, batch 1" "prefill 512" --peers
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import shapes
import torch
from launches import LAUNCHES, PAGE_SIZE, POOL_PAGES, Launch
from opennpu.compiler.image import build_image
from opennpu.dialects.isa.encoding import Instruction, encode
from opennpu.runtime.container import Container
from opennpu.runtime.device import Device
from opennpu.runtime.language_model import CachedSequence, Chunk, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program
from peers import PEERS, Peer, missing, sample
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    threads = args.threads or len(os.sched_getaffinity(0))
    torch.manual_seed(0)
    try:
        folder = shapes.directory(args.model)
    except FileNotFoundError as error:
        print(f"engine.py: error: {error}", file=sys.stderr)
        return 1
    model = _model(shapes.program(folder), threads)
    peers = _peers(args.peers, folder, threads)
    launches = [launch for launch in LAUNCHES if launch.name in args.launches]
    result = {"model": args.model, "machine": _machine(threads)}
    result |= {"launch_overhead_us": 1e6 * _launch_overhead(model.program.device)}
    result |= _measure(model, peers, launches, args.rounds, threads)
    for peer in peers:
        peer.close()
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(_table(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    names = [launch.name for launch in LAUNCHES]
    parser = argparse.ArgumentParser(
        prog="engine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="SmolLM2-135M", help=f"{', '.join(shapes.SHAPES)}, or a Hugging Face directory"
    )
    parser.add_argument("--threads", type=int, help="worker threads; one for each CPU without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--launches", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[*PEERS], metavar="NAME")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    return parser


def _model(program: Path, threads: int) -> LanguageModel:
    """Keys and values of all pages are random."""
    loaded = Program.load(Device(Container.open(program).signature.chip, threads=threads), program)
    pool = PagePool(loaded.device, loaded.signature.kv, PAGE_SIZE, POOL_PAGES)
    for layer in range(pool.kv.layers):
        for view in pool.views(layer):
            view.uniform_(-1, 1)
    return LanguageModel(loaded, pool)


def _peers(names: list[str], folder: Path, threads: int) -> list[Peer]:
    for name in names:
        if package := missing(name):
            print(f"{name} is skipped: there is no {package}", file=sys.stderr)
    return [Peer(name, folder, threads) for name in names if not missing(name)]


# ---- measuring


def _measure(
    model: LanguageModel, peers: list[Peer], launches: list[Launch], rounds: int, threads: int
) -> dict:
    probes: list[dict[str, float]] = []
    seconds: dict[tuple[str, str], list[float | None]] = {}
    limits: dict[str, list[float]] = {}
    _probe(threads)
    for _, launch in tqdm([(i, launch) for i in range(rounds) for launch in launches], disable=None):
        probes.append(_probe(threads))
        ours = _sample(model, launch)
        for name, taken in [("", ours), *((peer.name, peer.seconds(launch)) for peer in peers)]:
            seconds.setdefault((launch.name, name), []).append(taken)
        limits.setdefault(launch.name, []).append(launch.limit(model.program.signature, probes[-1]))
    figures = []
    for launch in launches:
        ours, limit = seconds[launch.name, ""], limits[launch.name]
        theirs = {peer.name: seconds[launch.name, peer.name] for peer in peers}
        figures.append(
            {
                "name": launch.name,
                "tokens": launch.tokens,
                "samples_s": ours,
                "seconds": statistics.median(ours),
                "limit_seconds": statistics.median(limit),
                "of_limit": statistics.median(a / b for a, b in zip(limit, ours, strict=True)),
                "target": launch.target,
                "peers_s": {name: None if None in s else statistics.median(s) for name, s in theirs.items()},
            }
        )
    medians = {name: statistics.median(probe[name] for probe in probes) for name in probes[0]}
    return {"limits": medians, "launches": figures}


def _sample(model: LanguageModel, launch: Launch) -> float:
    """Seconds from the tokens to the logits."""
    sequences = [CachedSequence(model.pool.alloc(part.pages)) for part in launch.parts]
    vocabulary = model.program.signature.model["vocab_size"]
    tokens = [torch.randint(vocabulary, (part.tokens,)).tolist() for part in launch.parts]

    def step() -> None:
        for sequence, part in zip(sequences, launch.parts, strict=True):
            sequence.length = part.cached
        model.forward([Chunk(sequence, ids) for sequence, ids in zip(sequences, tokens, strict=True)])

    try:
        return sample(step)
    finally:
        for sequence in sequences:
            model.release(sequence)


def _launch_overhead(device: Device) -> float:
    """Seconds from the launch of a program that only halts to the end of the synchronisation; the median."""
    empty = device.load(build_image(device.chip, [], encode([Instruction("halt", {})]), []))
    stream = device.stream()

    def launch() -> None:
        stream.launch(empty, [])
        stream.synchronize()

    return statistics.median(sample(launch) for _ in range(300))


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


# ---- the table


def _table(result: dict) -> str:
    machine, limits = result["machine"], result["limits"]
    peers = list(result["launches"][0]["peers_s"])
    head = ["launch", "ms", "tok/s", "limit, ms", "of the limit", "wanted", *(f"{p}, tok/s" for p in peers)]
    lines = [
        f"{result['model']} on {machine['cpu']}, {machine['cpus']} CPUs, {' '.join(machine['features'])}; "
        f"{machine['threads']} threads; load average at the start {machine['load_average']}",
        f"limits: read {limits['read_gb_per_s']:.1f} GB/s, f32 {limits['f32_gflop_per_s']:.0f} GFLOP/s, "
        + (f"bf16 {limits['bf16_gflop_per_s']:.0f} GFLOP/s" if limits["bf16_gflop_per_s"] else "no bf16"),
        f"launch of an empty program: {result['launch_overhead_us']:.1f} us",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for m in result["launches"]:
        rates = [
            "–" if s is None else f"{m['tokens'] / s:.1f}" for s in (m["seconds"], *m["peers_s"].values())
        ]
        cells = [m["name"], f"{m['seconds'] * 1e3:.1f}", rates[0], f"{m['limit_seconds'] * 1e3:.1f}"]
        cells += [f"{m['of_limit']:.2f}", f"{m['target']:.2f}", *rates[1:]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
