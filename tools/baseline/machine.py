"""The machine that records: what it is, and what it can do at most."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

STREAM_BYTES = 256 << 20
"""Of the matrix whose product with a vector shows the bandwidth: far more than a host's caches hold."""
SQUARES = {"cpu": (1024, [torch.float32]), "cuda": (8192, [torch.float32, torch.bfloat16])}
"""The side and dtypes of the matrices whose product shows the arithmetic; a host may emulate bfloat16."""
ROUNDS = 3


def hardware(device: str) -> dict:
    """What `device` ("cpu" or "cuda") is."""
    threads = torch.get_num_threads()
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return {
            "device": device,
            "name": properties.name,
            "threads": threads,
            "bytes": properties.total_memory,
        }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"device": device, "name": _processor(), "threads": threads, "bytes": memory}


def versions() -> dict:
    import tokenizers
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }


def limits(device: str) -> dict:
    """The best that PyTorch reaches here: bytes/s of reading memory, FLOP/s of matrix products."""
    rows = STREAM_BYTES // 4 // 8192
    matrix, vector = torch.ones(rows, 8192, device=device), torch.ones(8192, device=device)
    read = STREAM_BYTES / _median(lambda: matrix @ vector, device)
    side, dtypes = SQUARES[device]
    rates = []
    for dtype in dtypes:
        square = torch.ones(side, side, device=device, dtype=dtype)
        rates.append(2 * side**3 / _median(lambda square=square: square @ square, device))
    return {"bytes_per_s": read, "flop_per_s": max(rates)}


def _median(work: Callable[[], object], device: str) -> float:
    """Seconds: the median of ROUNDS after one that warms up."""
    return statistics.median([_seconds(work, device) for _ in range(ROUNDS + 1)][1:])


def _seconds(work: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _processor() -> str:
    """Its name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
