"""Other engines on the same model and launches, each in a process that stays: `Peer` asks, `main` answers.

A worker reads launches by name, one a line, and answers each with a line of JSON: its seconds, or none for
what the engine cannot do in one step. Contexts are random keys and values, as on the chip.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from launches import LAUNCHES, Launch

MARK = "peer: "  # what libraries print is no answer
LEAST_SECONDS = 0.25  # of a sample
MOST_STEPS = 7  # of a sample


class Peer:
    """A running worker, until it is closed. Raises RuntimeError when it ends by itself."""

    def __init__(self, name: str, model: Path, threads: int):
        self.name = name
        command = [sys.executable, __file__, name, model, "--threads", threads]
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, launch: Launch) -> float | None:
        print(launch.name, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def sample(step: Callable[[], object], least_seconds: float = LEAST_SECONDS) -> float:
    """Seconds of a step: the median of as many as fill the time."""
    times: list[float] = []
    while sum(times) < least_seconds and len(times) < MOST_STEPS:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def missing(name: str) -> str | None:
    """The package that a peer lacks."""
    return next((package for package in PEERS[name][1] if not find_spec(package)), None)


# ---- transformers on PyTorch


class Transformers:
    def __init__(self, model: Path, threads: int, dtype: str):
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        torch.set_num_threads(threads)
        self.torch, self.new_cache = torch, DynamicCache
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()

    def seconds(self, launch: Launch) -> float | None:
        """None where sequences have different lengths: a step wants a rectangle."""
        if len(set(launch.parts)) > 1:
            return None
        (cached, tokens), batch = (launch.parts[0].cached, launch.parts[0].tokens), len(launch.parts)
        cache = self._cache(batch, cached)
        ids = self.torch.randint(self.model.config.vocab_size, (batch, tokens))

        def step() -> None:
            with self.torch.no_grad():
                self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.crop(cached)

        return sample(step)

    def _cache(self, batch: int, cached: int):
        config, cache = self.model.config, self.new_cache(config=self.model.config)
        shape = (batch, config.num_key_value_heads, cached, config.head_dim)
        for layer in range(config.num_hidden_layers if cached else 0):
            k, v = (self.torch.randn(shape, dtype=self.model.dtype) for _ in "kv")
            cache.update(k, v, layer)
        return cache


PEERS = {
    "transformers bf16": (lambda *of: Transformers(*of, "bfloat16"), ("torch", "transformers")),
    "transformers f32": (lambda *of: Transformers(*of, "float32"), ("torch", "transformers")),
}
"""By name: what makes the worker of (model, threads), and the packages that it needs."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="peers.py", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    worker = PEERS[args.name][0](args.model, args.threads)
    launches = {launch.name: launch for launch in LAUNCHES}
    for line in sys.stdin:
        print(MARK + json.dumps(worker.seconds(launches[line.strip()])), flush=True)


if __name__ == "__main__":
    main()
