"""Serving the demo's model through SGLang on the virtual chip, beside SGLang's own CPU engine.

All servers stand side by side and sleep while idle; every round asks each of them in turn, by
`sglang.bench_serving`, with the same requests. "no model" is a model that computes nothing: what is
left is SGLang's, on either platform.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).parents[1]
PLUGINS = Path(__file__).with_name("serving_plugins")
PAGE_SIZE = 16  # tokens
POOL = 16384  # tokens of keys and values
CHUNK = 2048  # tokens of prompts in a batch
RUNNING = 32  # sequences at once
SEED = 1

NO_MODEL = ["--json-model-override-args", '{"architectures": ["NoModel"]}']
IN_TREE = {"SGLANG_PLATFORM": "in-tree-cpu"}
OURS = {"SGLANG_PLATFORM": "opennpu"}
EXTERNAL = {"SGLANG_EXTERNAL_MODEL_PACKAGE": "opennpu_benchmark.models"}


@dataclass(frozen=True)
class Kind:
    """How a server is started: its environment and what it takes beside the common arguments."""

    environment: dict[str, str]
    arguments: tuple[str, ...] = ()


KINDS = {
    "opennpu": Kind(OURS, ("--dtype", "bfloat16")),
    "in-tree bf16": Kind(IN_TREE, ("--dtype", "bfloat16", "--device", "cpu")),
    "in-tree f32": Kind(IN_TREE, ("--dtype", "float32", "--device", "cpu")),
    "no model, opennpu": Kind(OURS | EXTERNAL, ("--dtype", "bfloat16", *NO_MODEL)),
    "no model, in-tree": Kind(IN_TREE | EXTERNAL, ("--dtype", "bfloat16", "--device", "cpu", *NO_MODEL)),
}
BASELINES = ("in-tree bf16", "in-tree f32")
QUICK = {"servers": ["opennpu", "in-tree bf16"], "rounds": 1, "concurrency": [8], "requests": [8]}


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.quick:
        parser.set_defaults(**QUICK)
        args = parser.parse_args(argv)
    if len(args.requests) != len(args.concurrency):
        parser.error("--requests takes as many numbers as --concurrency")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # servers end with this process
    deadline = time.monotonic() + 60 * args.minutes
    result = {"machine": _machine(), "arguments": _texts(vars(args)), "starts": [], "runs": []}
    with tempfile.TemporaryDirectory(prefix="opennpu-serving-") as folder, contextlib.ExitStack() as stack:
        servers = {}
        if "opennpu" in args.servers:
            with _started(args, "opennpu", Path(folder), result, "cold"):
                pass
        for name in args.servers:
            cache = "warm" if name == "opennpu" else "none"
            compiled = _entries(Path(folder))
            servers[name] = stack.enter_context(_started(args, name, Path(folder), result, cache))
            if cache == "warm" and _entries(Path(folder)) != compiled:
                raise SystemExit("the second start compiled what the first had left in the compile cache")
        for server in servers.values():
            server.bench(args, max(args.concurrency), min(args.requests))  # all sizes are known afterwards
        result["idle_cpu_percent"] = {name: server.idle_cpu() for name, server in servers.items()}
        for number in range(args.rounds):
            start = time.monotonic()
            _round(args, number, servers, result["runs"])
            if 2 * time.monotonic() - start > deadline:
                break  # another round would end too late
        result["memory"] = {name: server.memory() for name, server in servers.items()}
    result["machine"]["load_average_at_end"] = round(os.getloadavg()[0], 1)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(report(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serving.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  serving.py --json serving.json        all servers, three rounds: about ten minutes of two idle CPUs
  serving.py --quick                    does it work? two servers, one round
  serving.py --rounds 1 --concurrency 8 --requests 16 --servers opennpu 'in-tree f32'""",
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "build" / "demo" / "smollm2", help="model folder"
    )
    parser.add_argument("--servers", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one short round of two servers: does it work?")
    parser.add_argument("--rounds", type=int, default=3, help="of all servers in turn; medians count")
    parser.add_argument("--minutes", type=float, default=12, help="no round begins that would end later")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32], metavar="N")
    parser.add_argument(
        "--requests",
        type=int,
        nargs="+",
        default=[3, 16, 32],
        metavar="N",
        help="of each concurrency, in order",
    )
    parser.add_argument("--input-tokens", type=int, default=64, help="of every request")
    parser.add_argument("--output-tokens", type=int, default=32, help="of every request")
    parser.add_argument("--port", type=int, default=31700, help="of the first server")
    parser.add_argument("--timeout", type=int, default=300, help="seconds a server may take to start")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    return parser


# ---- a server


class Server:
    """A process group that serves; it answers when the object is there."""

    def __init__(self, args: argparse.Namespace, name: str, folder: Path, start: float, process):
        self.name, self.process = name, process
        self.port, self.folder, self.model = _port(args, name), folder, args.model
        log = folder / f"{name}.log"
        while not self._answers("/health"):
            if process.poll() is not None or time.monotonic() > start + args.timeout:
                raise SystemExit(f"server {name!r} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)
        body = {"text": "Hello", "sampling_params": {"max_new_tokens": 1}}
        self._request("/generate", json.dumps(body).encode())
        self.seconds_to_first_token = time.monotonic() - start

    def bench(self, args: argparse.Namespace, concurrency: int, requests: int) -> dict:
        """Figures of `sglang.bench_serving`, and the CPU time of the server meanwhile."""
        output = self.folder / "bench.jsonl"
        output.unlink(missing_ok=True)
        options = {
            "backend": "sglang",
            "base-url": f"http://127.0.0.1:{self.port}",
            "model": self.model,
            "dataset-name": "random-ids",
            "random-input-len": args.input_tokens,
            "random-output-len": args.output_tokens,
            "random-range-ratio": 1.0,
            "num-prompts": requests,
            "max-concurrency": concurrency,
            "warmup-requests": 0,
            "seed": SEED,
            "output-file": output,
        }
        flags = ["--tokenize-prompt", "--flush-cache", "--disable-tqdm"]
        before, text = self.cpu_seconds(), io.StringIO()
        with contextlib.redirect_stdout(text):
            _bench_serving([*(f"--{key}={value}" for key, value in options.items()), *flags])
        figures = json.loads(output.read_text())
        if figures["completed"] != requests:
            raise SystemExit(f"{self.name}: {figures['completed']} of {requests} requests\n{text.getvalue()}")
        cpu = self.cpu_seconds() - before
        return {
            "output_tokens_per_s": figures["output_throughput"],
            "ttft_ms": figures["median_ttft_ms"],
            "ttft_p99_ms": figures["p99_ttft_ms"],
            "itl_ms": figures["median_itl_ms"],
            "itl_p99_ms": figures["p99_itl_ms"],
            "cpu_ms_per_token": cpu * 1e3 / figures["total_output_tokens"],
        }

    def idle_cpu(self, seconds: float = 2.0) -> float:
        """Of one CPU, in percent, without requests."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return (self.cpu_seconds() - before) / seconds * 100

    def cpu_seconds(self) -> float:
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._pids()]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """MB of the host, where shared pages count once; and what SGLang says of its device."""
        state = json.loads(self._request("/server_info"))["internal_states"][0]["memory_usage"]
        shares = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._pids()]
        host = sum(int(share.partition("\nPss:")[2].split()[0]) for share in shares) / 1024
        return {"host": host, "weights": state["weight"] * 1024, "pool": state["kvcache"] * 1024}

    def _pids(self) -> list[int]:
        """Processes of the server's session."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(path.name)) == self.process.pid:
                    found.append(int(path.name))
        return found

    def _answers(self, path: str) -> bool:
        try:
            self._request(path)
        except (URLError, OSError):
            return False
        return True

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as answer:
            return answer.read()


@contextlib.contextmanager
def _started(args: argparse.Namespace, name: str, folder: Path, result: dict, cache: str):
    """A server of the kind, which ends with the block. The compile cache lies in the folder."""
    kind, path = KINDS[name], os.environ.get("PYTHONPATH")
    environment = os.environ | kind.environment | {"OPENNPU_CACHE_DIR": str(folder / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(PLUGINS), *([path] if path else [])])
    common = {
        "model-path": args.model,
        "port": _port(args, name),
        "page-size": PAGE_SIZE,
        "max-total-tokens": POOL,
        "chunked-prefill-size": CHUNK,
        "max-running-requests": RUNNING,
        "random-seed": SEED,
        "log-level": "warning",
    }
    command = [sys.executable, "-m", "sglang.launch_server", "--skip-server-warmup", "--sleep-on-idle"]
    command += [*(f"--{key}={value}" for key, value in common.items()), *kind.arguments]
    start = time.monotonic()
    _check_free(_port(args, name))
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        server = Server(args, name, folder, start, process)
        _progress(f"{name}: first token {server.seconds_to_first_token:.1f} s after its start, cache {cache}")
        entry = {"server": name, "cache": cache, "seconds_to_first_token": server.seconds_to_first_token}
        result["starts"].append(entry)
        yield server
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def _entries(folder: Path) -> dict[str, int]:
    """Programs in the compile cache, and when they were written: all exports and compiles end there."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "cache").glob("*/model.npu")}


def _port(args: argparse.Namespace, name: str) -> int:
    return args.port + 10 * list(KINDS).index(name)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SystemExit(f"port {port} is in use: choose another by --port")


def _bench_serving(arguments: list[str]) -> None:
    """`python -m sglang.bench_serving`, without importing it each time."""
    from sglang.benchmark.serving import cli_main

    saved, sys.argv = sys.argv, ["bench_serving", *arguments]
    try:
        cli_main()
    finally:
        sys.argv = saved


def _round(args: argparse.Namespace, number: int, servers: dict[str, Server], runs: list[dict]) -> None:
    for concurrency, requests in zip(args.concurrency, args.requests, strict=True):
        for name, server in servers.items():
            figures = server.bench(args, concurrency, requests)
            load = round(os.getloadavg()[0], 1)
            runs.append(
                {"round": number, "server": name, "concurrency": concurrency, "load_average": load} | figures
            )
            speed = f"{figures['output_tokens_per_s']:.1f} tok/s, {figures['itl_ms']:.1f} ms a token"
            _progress(f"round {number + 1}, concurrency {concurrency}, {name}: {speed}")


def _machine() -> dict:
    versions = {name: metadata.version(name) for name in ("opennpu", "sglang", "torch", "transformers")}
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    return {
        "cpu": cpu.partition(":")[2].strip() or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_at_start": round(os.getloadavg()[0], 1),
        "versions": versions,
    }


def _texts(values: dict) -> dict:
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# ---- the tables


def report(result: dict) -> str:
    """Markdown tables of a result of `main`."""
    machine, arguments = result["machine"], result["arguments"]
    names = list(dict.fromkeys(run["server"] for run in result["runs"]))
    rounds = len({run["round"] for run in result["runs"]})
    lines = [
        f"{machine['cpu']}, {machine['cpus']} CPUs, load average {machine['load_average_at_start']} to "
        f"{machine['load_average_at_end']}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
        f"{arguments['input_tokens']} tokens in, {arguments['output_tokens']} out; "
        f"medians of {rounds} rounds",
        "",
        "| concurrency | server | tokens/s | TTFT ms | p99 | between tokens ms | p99 | CPU ms a token |",
        "|---|---|---|---|---|---|---|---|",
    ]
    columns = ("output_tokens_per_s", "ttft_ms", "ttft_p99_ms", "itl_ms", "itl_p99_ms", "cpu_ms_per_token")
    for concurrency in arguments["concurrency"]:
        for name in names:
            cells = " | ".join(f"{_median(result, name, concurrency, c):.1f}" for c in columns)
            lines.append(f"| {concurrency} | {name} | {cells} |")
    if "opennpu" in names and set(BASELINES) & set(names):
        lines += ["", *_ratios(result, [name for name in BASELINES if name in names])]
    lines += ["", "| server | compile cache | start to first token s |", "|---|---|---|"]
    for start in result["starts"]:
        lines.append(f"| {start['server']} | {start['cache']} | {start['seconds_to_first_token']:.1f} |")
    lines += [
        "",
        "| server | host MB | of it weights | keys and values | CPU while idle |",
        "|---|---|---|---|---|",
    ]
    for name, memory in result["memory"].items():
        figures = f"{memory['host']:.0f} | {memory['weights']:.0f} | {memory['pool']:.0f}"
        lines.append(f"| {name} | {figures} | {result['idle_cpu_percent'][name]:.0f} % |")
    return "\n".join(lines)


def _ratios(result: dict, baselines: list[str]) -> list[str]:
    """Tokens/s of opennpu over those of each baseline, round by round."""
    lines = ["| concurrency | opennpu over | tokens/s, each round | median |", "|---|---|---|---|"]
    for concurrency in result["arguments"]["concurrency"]:
        for baseline in baselines:
            pairs = zip(
                _figures(result, "opennpu", concurrency, "output_tokens_per_s"),
                _figures(result, baseline, concurrency, "output_tokens_per_s"),
                strict=True,
            )
            ratios = [ours / theirs for ours, theirs in pairs]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"| {concurrency} | {baseline} | {each} | {statistics.median(ratios):.2f} |")
    return lines


def _median(result: dict, name: str, concurrency: int, column: str) -> float:
    return statistics.median(_figures(result, name, concurrency, column))


def _figures(result: dict, name: str, concurrency: int, column: str) -> list[float]:
    wanted = (name, concurrency)
    return [run[column] for run in result["runs"] if (run["server"], run["concurrency"]) == wanted]


if __name__ == "__main__":
    sys.exit(main())
