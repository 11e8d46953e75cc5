"""The log of launches of a server, `OPENNPU_REPORT`; `opennpu.runtime.serving_report` reads it."""

import json
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from opennpu.sglang_integration.observer import Batch


@dataclass
class _Seen:
    """What is known of a request since its last launch."""

    number: int
    tokens: int = 0  # that it has got
    ended: bool = False


class LaunchLog:
    """A line of JSON for the program, for each request when its first launch ends, and for each launch.

    {"program": path} · {"request": number, "arrival": s} · {"phase": …, "launched": s,
    "done": s, "pieces": [[request or null, new tokens, length, gave a token], …]}. Seconds are of the
    system's monotonic clock.
    """

    def __init__(self, path: str, scheduler):
        # Open as long as the process, which may be killed: a line at a time.
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        # By request, and not by its name: a launch under way when it ended brings it once more.
        self._seen: WeakKeyDictionary[object, _Seen] = WeakKeyDictionary()
        self._count = 0
        forward = scheduler.tp_worker.model_runner.model.forward
        program = getattr(forward, "program", None)
        self._write({"program": program and str(program)})

    def add(self, batch: Batch) -> None:
        pieces = []
        rows = zip(batch.batch.reqs, batch.new_tokens, batch.lengths, strict=True)
        for request, new, length in rows:
            seen = self._seen.get(request) or self._register(request)
            # None came of a piece of a prompt, a request that was put back, or one that had ended before.
            gave = len(request.output_ids) > seen.tokens
            pieces.append([None if seen.ended else seen.number, new, length, gave])
            seen.tokens, seen.ended = len(request.output_ids), request.finished()
        times = {"launched": batch.batch.launch_ts, "done": time.monotonic()}
        self._write({"phase": batch.phase, **times, "pieces": pieces})

    def _register(self, request) -> _Seen:
        seen = self._seen[request] = _Seen(self._count)
        self._count += 1
        self._write({"request": seen.number, "arrival": request.time_stats.wait_queue_entry_time})
        return seen

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
