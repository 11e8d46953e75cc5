"""The runtime's counters as Prometheus metrics, beside SGLang's own."""

import torch
from opennpu.runtime.chip import Chip
from opennpu.runtime.settings import settings
from opennpu.sglang_integration.observer import PHASES, Batch

COUNTERS = {
    "opennpu:launches": ("phase", "launches of the compiled model"),
    "opennpu:tokens": ("phase", "tokens that the model took, of prompts and new ones"),
    "opennpu:fallbacks": ("reason", "batches that ran operator by operator instead of compiled"),
    "opennpu:host_operators": ("operator", "calls of PyTorch operators that ran on the host"),
    "opennpu:device_launches": (None, "launches of all programs, single operators among them"),
    "opennpu:device_instructions": (None, "instructions of all cores"),
    "opennpu:device_bytes_loaded": (None, "bytes from HBM to scratchpads"),
    "opennpu:device_bytes_stored": (None, "bytes from scratchpads to HBM"),
    "opennpu:device_macs": (None, "multiply-adds of the matrix units"),
    "opennpu:device_busy_seconds": (None, "time with a launch running"),
    "opennpu:device_least_cycles": (
        None,
        "cycles of the chip that these bytes, or multiply-adds, take at least",
    ),
}
"""Name without `_total` → label, meaning."""

GAUGES = {
    "opennpu:kv_pages": "pages of the KV pool that SGLang gives out",
    "opennpu:kv_pages_used": "of these, held by requests or the radix cache",
    "opennpu:memory_used_bytes": "chip memory of weights, KV pages and all else",
}
"""Name → meaning."""


class Metrics:
    """In the scheduler's process; `update` after every batch."""

    def __init__(self, scheduler):
        # prometheus_client asks for its folder when it is imported: not before SGLang has set it.
        from prometheus_client import Counter, Gauge

        names = {"model_name": scheduler.server_args.served_model_name or scheduler.server_args.model_path}
        self._labels = names
        self._counters = {
            name: Counter(name, text, [*names, *filter(None, [label])])
            for name, (label, text) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(name, text, [*names], multiprocess_mode="mostrecent").labels(**names)
            for name, text in GAUGES.items()
        }
        self._seen: dict[tuple[str, str], float] = {}
        self._tokens = dict.fromkeys(PHASES.values(), 0)
        self._cycles = LeastCycles(settings().load_chip())

    def update(self, batch: Batch) -> None:
        self._tokens[batch.phase] += sum(batch.new_tokens)
        for name, totals in self._totals(batch.scheduler).items():
            for value_of_label, total in totals.items():
                self._raise(name, value_of_label, total)
        allocator = batch.scheduler.token_to_kv_pool_allocator
        pages = allocator.size // allocator.page_size
        free, total = torch.opennpu.mem_get_info()
        values = (
            pages,
            pages - allocator.available_size() // allocator.page_size,
            total - free,
        )
        for gauge, value in zip(self._gauges.values(), values, strict=True):
            gauge.set(value)

    def _totals(self, scheduler) -> dict[str, dict[str, float]]:
        """All counters by name and value of their label, since the start."""
        forward = scheduler.tp_worker.model_runner.model.forward
        device = torch.opennpu.counters()
        launches = getattr(forward, "launches", {})
        return {
            "opennpu:launches": {PHASES[mode]: count for mode, count in launches.items()},
            "opennpu:tokens": self._tokens,
            "opennpu:fallbacks": getattr(forward, "fallbacks", {}),
            "opennpu:host_operators": torch.opennpu.fallbacks(),
            "opennpu:device_launches": {"": device["launches"]},
            "opennpu:device_instructions": {"": device["instructions"]},
            "opennpu:device_bytes_loaded": {"": device["bytes_loaded"]},
            "opennpu:device_bytes_stored": {"": device["bytes_stored"]},
            "opennpu:device_macs": {"": device["macs"]},
            "opennpu:device_busy_seconds": {"": device["busy_ns"] / 1e9},
            "opennpu:device_least_cycles": {"": self._cycles.after(device)},
        }

    def _raise(self, name: str, value_of_label: str, total: float) -> None:
        before = self._seen.get((name, value_of_label), 0)
        if total < before:  # counted anew since a reset
            before = 0
        self._seen[name, value_of_label] = total
        if total == before:
            return
        label = COUNTERS[name][0]
        labels = self._labels | ({label: value_of_label} if label else {})
        self._counters[name].labels(**labels).inc(total - before)


class LeastCycles:
    """The roofline bound of what the device has done, in cycles: each batch at the memory's full bandwidth or
    the matrix units' peak, whichever takes longer. 0 for a chip without costs."""

    def __init__(self, chip: Chip):
        self._chip, self._bytes, self._macs, self._cycles = chip, 0, 0, 0.0

    def after(self, device: dict[str, int]) -> float:
        """The sum of all, given the device's counters after a batch."""
        if self._chip.timing is None:
            return 0.0
        moved, macs = device["bytes_loaded"] + device["bytes_stored"], device["macs"]
        self._cycles += max(
            (moved - self._bytes) / self._chip.hbm_bytes_per_cycle,
            (macs - self._macs) / self._chip.bf16_macs_per_cycle,
            0,  # counted anew since a reset
        )
        self._bytes, self._macs = moved, macs
        return self._cycles
