"""Where the host's time goes when the virtual chip runs a program: what `npu-run --profile` prints."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from opennpu.runtime._core import ProfiledProgram
from opennpu.runtime.program import Program
from opennpu.tools.profile.names import ENDS

UNITS = ("load", "store", "matrix", "vector", "sequencer")
MEMORY_BYTES = 256 << 20  # more than caches hold
MATRIX = 1024  # rows and columns
ROUNDS = 7


@dataclass(frozen=True)
class Limits:
    """What PyTorch reaches on this host with as many threads, the best of some rounds."""

    bytes_per_second: float  # of a sum over more floats than caches hold
    flops: float  # of a product of matrices in float32

    @classmethod
    def measure(cls, threads: int) -> "Limits":
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            memory, square = torch.zeros(MEMORY_BYTES // 4), torch.zeros(MATRIX, MATRIX)
            return cls(MEMORY_BYTES / _best(memory.sum), 2 * MATRIX**3 / _best(lambda: square @ square))
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class HostProfile:
    """Some launches of a program on `threads` threads.

    ops, one a source op: source, ns (by unit, summed over the threads), instructions, hbm_bytes (as the
    instructions count them: what a cache holds counts again), macs.
    """

    launches: int
    seconds: float
    threads: int
    ops: list[dict]

    def busy(self, op: dict) -> float:
        """Seconds of wall time that the op takes while all threads work."""
        return sum(op["ns"].values()) / self.threads / 1e9

    @property
    def waiting(self) -> float:
        """Seconds in which threads have nothing to do: between the launches' cores, at barriers."""
        return max(0.0, self.seconds - sum(map(self.busy, self.ops)))


class HostProfiler:
    """Takes the place of a program's stream: its launches run under the profiler, each at once.

    Raises NpuError as a launch does.
    """

    def __init__(self, program: Program, image: bytes, threads: int | None = None):
        chip = program.device.chip
        self.threads = min(threads or len(os.sched_getaffinity(0)), chip.cores)
        self._stream, self._profiled = program.stream, ProfiledProgram(chip, image, self.threads)
        self.copy_in, self.copy_out = self._stream.copy_in, self._stream.copy_out
        self.synchronize = self._stream.synchronize
        program.stream = self

    def launch(self, _program, args: list) -> None:
        self._stream.synchronize()
        self._profiled.run(args)

    def take(self) -> HostProfile:
        """What ran since the last call."""
        taken = self._profiled.take()
        return HostProfile(taken["launches"], taken["ns"] / 1e9, self.threads, taken["ops"])


def profile_lines(profile: HostProfile, limits: Limits, title: str, count: int = 12) -> Iterator[str]:
    """A table of the ops that take longest, for one launch in the mean."""
    launches = max(profile.launches, 1)
    yield (
        f"{title}: {profile.launches} launches of {1e3 * profile.seconds / launches:.3f} ms, "
        f"{profile.threads} threads"
    )
    units = "".join(f"{unit:>10}" for unit in UNITS)
    yield f"{'ms':>9} {'':>6} {'GB/s':>6} {'GFLOP/s':>8} {'of limit':>8} {units}  op"
    ops = sorted(filter(profile.busy, profile.ops), key=profile.busy, reverse=True)
    for op in ops[:count]:
        busy, flops = profile.busy(op), 2 * op["macs"]
        bound = max(op["hbm_bytes"] / limits.bytes_per_second, flops / limits.flops)
        rates = f"{op['hbm_bytes'] / busy / 1e9:>6.1f} {flops / busy / 1e9:>8.1f} {bound / busy:>8.2f}"
        shares = "".join(f"{op['ns'][unit] / 1e9 / profile.threads / busy:>10.0%}" for unit in UNITS)
        yield f"{_time(busy, profile)} {rates} {shares}  {op['source'] or ENDS}"
    if rest := ops[count:]:
        yield f"{_time(sum(map(profile.busy, rest)), profile)} {'':>75}  {len(rest)} more ops"
    yield f"{_time(profile.waiting, profile)} {'':>75}  threads without work"


def limits_line(limits: Limits) -> str:
    return (
        f"limits: {limits.bytes_per_second / 1e9:.1f} GB/s (a sum in PyTorch), "
        f"{limits.flops / 1e9:.1f} GFLOP/s (a product in PyTorch, float32)"
    )


def _time(seconds: float, profile: HostProfile) -> str:
    share = seconds / profile.seconds if profile.seconds else 0.0
    return f"{1e3 * seconds / max(profile.launches, 1):>9.3f} {share:>6.1%}"


def _best(work: Callable[[], object]) -> float:
    """Seconds of the quickest round."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
