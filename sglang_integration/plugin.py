"""Entry points that SGLang looks up. Light: importing this module must not import SGLang."""

import functools
import importlib
import os


def activate() -> str:
    """`sglang.srt.platforms`: the path of the platform class."""
    os.environ.setdefault("SGLANG_ROPE_CACHE_FP32", "1")  # cosines and sines enter the chip unrounded
    # The next batch is prepared on another stream: it must not write what this one still reads.
    os.environ.setdefault("SGLANG_ENABLE_WAR_BARRIER", "1")
    os.environ.setdefault("SGLANG_CUDA_COREDUMP_BEFORE_CRASH", "0")  # it waits a minute for what never comes
    return "opennpu.sglang_integration.platform:OpenNpuPlatform"


SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
HOOKED = {
    f"{SCHEDULER}.event_loop_normal": "faults",
    f"{SCHEDULER}.event_loop_overlap": "faults",
    f"{SCHEDULER}.flush_cache": "faults",
    f"{SCHEDULER}.get_next_batch_to_run": "faults",
    f"{SCHEDULER}.process_batch_result": "faults",
    "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator.configure": "memory",
    "sglang.srt.mem_cache.kv_cache_configurator.KVCacheConfigurator._profile_available_bytes": "memory",
    "sglang.srt.mem_cache.pool_host.mha.get_mha_host_pool_cls": "host_pool",
}
"""Functions of SGLang → the file here whose function of the same name stands around it."""


def observe() -> None:
    """`sglang.srt.plugins`: metrics, log of launches, failures, short memory, pages on the host."""
    from opennpu.sglang_integration import observer
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    observer.register()
    for target, file in HOOKED.items():
        hook = functools.partial(_around, file, target.rpartition(".")[2])
        HookRegistry.register(target, hook, HookType.AROUND)


def _around(file: str, name: str, function, *args, **options):
    from sglang.srt.platforms import current_platform

    if current_platform.device_name != "opennpu":
        return function(*args, **options)
    module = importlib.import_module(f"opennpu.sglang_integration.{file}")  # late: SGLang's classes are there
    return getattr(module, name)(function, *args, **options)
