"""What SGLang's scheduler tells of each batch that has run: to Prometheus, and to the log of launches."""

import logging
import os
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("sglang.opennpu")

HOOK = "sglang.srt.managers.scheduler.Scheduler.process_batch_result"

PHASES = {"EXTEND": "prefill", "DECODE": "decode", "MIXED": "mixed"}
"""SGLang's forward modes that a program runs, as they are called in metrics and reports."""


class Batch(NamedTuple):
    """A batch whose tokens are known, from the scheduler and its ScheduleBatch."""

    scheduler: object
    batch: object

    @property
    def phase(self) -> str | None:
        """None for what is no launch of the model."""
        return PHASES.get(self.batch.forward_mode.name) if self.batch.reqs else None

    @property
    def new_tokens(self) -> list[int]:
        """By sequence."""
        return self.batch.extend_lens if self.phase != "decode" else [1] * len(self.batch.reqs)

    @property
    def lengths(self) -> list[int]:
        """Of the sequences, new tokens included."""
        return self.batch.seq_lens_cpu.tolist()


def register() -> None:
    """Hooks into the scheduler by SGLang's registry, where somebody wants to know."""
    wanted = [name for name in ("PROMETHEUS_MULTIPROC_DIR", "OPENNPU_REPORT") if os.environ.get(name)]
    if wanted:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        HookRegistry.register(HOOK, _Observers(), HookType.AFTER)


class _Observers:
    """The hook itself; it makes the observers at the first batch, when all is set up."""

    def __init__(self):
        self._observers: list[Callable[[Batch], None]] | None = None

    def __call__(self, nothing, scheduler, batch, result) -> None:
        from opennpu.sglang_integration.faults import FAILURES  # late: the scheduler is there now

        if self._observers is None:
            self._observers = list(_observers(scheduler))
        seen = Batch(scheduler, batch)
        if seen.phase:
            for observe in self._observers:
                try:
                    observe(seen)
                except FAILURES as error:  # of a counter that the chip does not tell; no request needs it
                    logger.warning("a batch is not counted: %s", error)


def _observers(scheduler):
    from sglang.srt.platforms import current_platform
    from sglang.srt.runtime_context import get_observability

    if current_platform.device_name != "opennpu":
        return
    if get_observability().enable_metrics:
        from opennpu.sglang_integration.metrics import Metrics

        yield Metrics(scheduler).update
    if path := os.environ.get("OPENNPU_REPORT"):
        from opennpu.sglang_integration.launch_log import LaunchLog

        yield LaunchLog(path, scheduler).add
