"""The log of launches of a server, `OPENNPU_REPORT`; `opennpu.runtime.serving_report` reads it."""

import json
import time

from opennpu.sglang_integration.observer import Batch


class LaunchLog:
    """A line of JSON for the program, for each request when its first launch ends, and for each launch.

    {"program": path, "chip": name} · {"request": number, "arrival": s} · {"phase": …, "launched": s,
    "done": s, "pieces": [[request or null, new tokens, length, gave a token], …]}. Seconds are of the
    system's monotonic clock.
    """

    def __init__(self, path: str, scheduler):
        # Open as long as the process, which may be killed: a line at a time.
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._numbers: dict[str, int] = {}  # of requests that have not finished
        self._count = 0
        forward = scheduler.tp_worker.model_runner.model.forward
        program = getattr(forward, "program", None)
        self._write({"program": program and str(program)})

    def add(self, batch: Batch) -> None:
        pieces = []
        rows = zip(batch.batch.reqs, batch.new_tokens, batch.lengths, strict=True)
        for request, new, length in rows:
            number = self._number(request, batch.phase)
            # A piece of a prompt gives none; nor does the launch that came after the end of a request.
            gave = number is not None and length >= len(request.origin_input_ids)
            pieces.append([number, new, length, gave])
            if request.finished():
                self._numbers.pop(request.rid, None)
        times = {"launched": batch.batch.launch_ts, "done": time.monotonic()}
        self._write({"phase": batch.phase, **times, "pieces": pieces})

    def _number(self, request, phase: str) -> int | None:
        if request.rid not in self._numbers:
            if phase == "decode":
                return None
            self._numbers[request.rid] = self._count
            self._count += 1
            arrival = request.time_stats.wait_queue_entry_time
            self._write({"request": self._numbers[request.rid], "arrival": arrival})
        return self._numbers[request.rid]

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
