"""Entry points that SGLang looks up. Light: importing this module must not import SGLang."""

import functools
import os


def activate() -> str:
    """`sglang.srt.platforms`: the path of the platform class."""
    os.environ.setdefault("SGLANG_ROPE_CACHE_FP32", "1")  # cosines and sines enter the chip unrounded
    # The next batch is prepared on another stream: it must not write what this one still reads.
    os.environ.setdefault("SGLANG_ENABLE_WAR_BARRIER", "1")
    return "opennpu.sglang_integration.platform:OpenNpuPlatform"


HOOKED = (
    "sglang.srt.managers.scheduler.Scheduler.run_batch",
    "sglang.srt.managers.scheduler.Scheduler.process_batch_result",
    "sglang.srt.managers.scheduler.Scheduler.get_next_batch_to_run",
    "sglang.srt.managers.scheduler.Scheduler.stash_chunked_request",
)
"""Methods around which the functions of the same name in faults.py stand."""


def observe() -> None:
    """`sglang.srt.plugins`: metrics, log of launches and what is done about failures, in the scheduler."""
    from opennpu.sglang_integration import observer
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    observer.register()
    for target in HOOKED:
        hook = functools.partial(_around, target.rpartition(".")[2])
        HookRegistry.register(target, hook, HookType.AROUND)


def _around(name: str, method, *args, **options):
    from sglang.srt.platforms import current_platform

    if current_platform.device_name != "opennpu":
        return method(*args, **options)
    from opennpu.sglang_integration import faults  # late: the scheduler is there now

    return getattr(faults, name)(method, *args, **options)
