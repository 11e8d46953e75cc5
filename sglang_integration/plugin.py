"""Entry points that SGLang looks up. Light: importing this module must not import SGLang."""

import os


def activate() -> str:
    """`sglang.srt.platforms`: the path of the platform class."""
    os.environ.setdefault("SGLANG_ROPE_CACHE_FP32", "1")  # cosines and sines enter the chip unrounded
    return "opennpu.sglang_integration.platform:OpenNpuPlatform"


def observe() -> None:
    """`sglang.srt.plugins`: metrics and the log of launches, in the scheduler's process."""
    from opennpu.sglang_integration import observer

    observer.register()
