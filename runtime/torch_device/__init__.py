"""The module `torch.opennpu`: the chip as a PyTorch device (docs/torch_device.md).

It has the names of `torch.cuda` and means the same by them. A device is given as an index, a
`torch.device`, a string, or None for the current one.
"""

import sys

import torch
from opennpu.runtime import _torch
from opennpu.runtime.settings import settings
from opennpu.runtime.torch_device import memory, native, random, streams
from opennpu.runtime.torch_device.adjustments import adjust
from opennpu.runtime.torch_device.devices import (
    NAME,
    DeviceProperties,
    _exchange_device,
    _is_in_bad_fork,
    _maybe_exchange_device,
    can_device_access_peer,
    counters,
    current_device,
    device,
    device_count,
    device_of,
    get_device_name,
    get_device_properties,
    init,
    is_available,
    is_initialized,
    native_handles,
    reset_counters,
    set_device,
    synchronize,
)
from opennpu.runtime.torch_device.fallbacks import (
    fallback_reasons,
    fallbacks,
    host_calls,
    is_strict,
    reset_fallbacks,
    set_strict,
)
from opennpu.runtime.torch_device.memory import (
    empty_cache,
    empty_host_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_snapshot,
    memory_stats,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
)
from opennpu.runtime.torch_device.random import (
    default_generator,
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from opennpu.runtime.torch_device.streams import (
    Event,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    is_current_stream_capturing,
    set_stream,
    stream,
)

__all__ = [
    "DeviceProperties",
    "Event",
    "OutOfMemoryError",
    "Stream",
    "StreamContext",
    "_exchange_device",
    "_is_in_bad_fork",
    "_maybe_exchange_device",
    "can_device_access_peer",
    "counters",
    "current_device",
    "current_stream",
    "default_generator",
    "default_generators",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "empty_host_cache",
    "fallback_reasons",
    "fallbacks",
    "get_amp_supported_dtype",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "host_calls",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "is_strict",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory",
    "memory_allocated",
    "memory_reserved",
    "memory_snapshot",
    "memory_stats",
    "memory_summary",
    "native_handles",
    "random",
    "reset_accumulated_memory_stats",
    "reset_counters",
    "reset_fallbacks",
    "reset_max_memory_allocated",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "set_strict",
    "settings",
    "stream",
    "streams",
    "synchronize",
]


OutOfMemoryError = torch.OutOfMemoryError


def __getattr__(name: str):
    if name == "default_generators":  # one a device; how many there are is not asked at import
        return tuple(map(default_generator, range(device_count())))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What `torch.autocast("opennpu")` can compute in; bfloat16 is the default."""
    return [torch.bfloat16]


def is_bf16_supported() -> bool:
    return True


def register() -> None:
    """Names the device, once, at the end of `import torch`."""
    _torch.set_up(settings)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, sys.modules[__name__])
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    torch.set_autocast_dtype(NAME, torch.bfloat16)
    adjust()
    native.register()
