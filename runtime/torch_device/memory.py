"""Memory of the devices under the names of `torch.cuda`; the allocator is `runtime/torch/caching.cpp`."""

from typing import Any

import torch
from opennpu.runtime import _torch
from opennpu.runtime.torch_device.devices import DeviceLike, index_of


def empty_cache() -> None:
    """Gives memory that is cached and not in use back to the chip, for its other users."""
    torch.accelerator.empty_cache()


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """(free, total) bytes of the chip's memory; what the allocator caches is not free."""
    return torch.accelerator.get_memory_info(index_of(device))


def memory_stats(device: DeviceLike = None) -> dict[str, Any]:
    """The allocator's statistics, under the keys of `torch.cuda.memory_stats`."""
    return torch.accelerator.memory_stats(index_of(device))


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes in tensors."""
    return torch.accelerator.memory_allocated(index_of(device))


def max_memory_allocated(device: DeviceLike = None) -> int:
    return torch.accelerator.max_memory_allocated(index_of(device))


def memory_reserved(device: DeviceLike = None) -> int:
    """Bytes taken from the chip: tensors and cache."""
    return torch.accelerator.memory_reserved(index_of(device))


def max_memory_reserved(device: DeviceLike = None) -> int:
    return torch.accelerator.max_memory_reserved(index_of(device))


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    torch.accelerator.reset_peak_memory_stats(index_of(device))


def reset_accumulated_memory_stats(device: DeviceLike = None) -> None:
    torch.accelerator.reset_accumulated_memory_stats(index_of(device))


def reset_max_memory_allocated(device: DeviceLike = None) -> None:
    reset_peak_memory_stats(device)


def memory_summary(device: DeviceLike = None, abbreviated: bool = False) -> str:
    """A table of the statistics; `abbreviated` leaves the two pools out."""
    index = index_of(device)
    stats = memory_stats(index)
    pools = ["all"] if abbreviated else ["all", "small_pool", "large_pool"]
    rows = ["allocated_bytes", "requested_bytes", "active_bytes", "reserved_bytes", "inactive_split_bytes"]
    rows += ["allocation", "active", "segment", "inactive_split"]
    columns = ["current", "peak", "allocated", "freed"]
    lines = [f"Memory of opennpu:{index}", f"{'':34}" + "".join(f"{column:>14}" for column in columns)]
    for row in rows:
        show = _size if row.endswith("bytes") else str
        for pool in pools:
            values = [show(stats.get(f"{row}.{pool}.{column}", 0)) for column in columns]
            lines.append(f"{row + ' ' + pool:34}" + "".join(f"{value:>14}" for value in values))
    lines.append(f"out of memory: {stats.get('num_ooms', 0)}; retries: {stats.get('num_alloc_retries', 0)}")
    return "\n".join(lines)


def set_per_process_memory_fraction(fraction: float, device: DeviceLike = None) -> None:
    """Limits what the allocator takes to this part of the chip's memory; beyond, an OutOfMemoryError."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction of the memory must be from 0 to 1, not {fraction}")
    index = index_of(device)
    _torch.limit_memory(index, int(fraction * mem_get_info(index)[1]))


def memory_snapshot(device: DeviceLike = None) -> list[dict[str, Any]]:
    """The segments that the allocator has taken from the chip, with their blocks, under the keys of
    `torch.cuda.memory_snapshot`; `stream` is a `stream_id`."""
    return _torch.memory_segments(index_of(device))


def empty_host_cache() -> None:
    """Gives pinned memory that is cached and not in use back to the system."""
    _torch.empty_host_cache()


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 10240:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} GiB"
