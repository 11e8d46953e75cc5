"""Threads that use the device at the same time, each on a stream of its own; exits with 1 on a wrong result.

A script of its own, so that it can also run with an extension that was built with ThreadSanitizer
(`-DOPENNPU_SANITIZE=thread`, libtsan preloaded).
"""

import sys
import threading

import torch

THREADS = 3


def work(seed: int, steps: int, shared: torch.Tensor, wrong: list[tuple[int, int]]) -> None:
    """Uploads, operators, copies, frees, uses of another stream's memory, events and downloads."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.opennpu.Stream()
    with torch.opennpu.stream(stream):
        for step in range(steps):
            host = torch.randint(0, 1 << 20, (50 + 3000 * (step % 7),), generator=generator)
            x = host.pin_memory().to("opennpu", non_blocking=True)
            y = x + x
            twin = torch.empty_like(y)
            twin.copy_(y)
            shared.record_stream(stream)
            event = stream.record_event()
            del x, y
            event.synchronize()
            if not torch.equal(twin.cpu(), 2 * host) or shared[step % 8].item() != 7:
                wrong.append((seed, step))
    torch.opennpu.memory_stats()


def main(steps: int) -> int:
    shared = torch.full((8,), 7).to("opennpu")
    wrong: list[tuple[int, int]] = []
    threads = [threading.Thread(target=work, args=(i, steps, shared, wrong)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.opennpu.synchronize()
    torch.opennpu.empty_cache()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
