"""The runtime: devices, programs, KV pages. `opennpu.runtime.chip` needs no compiled extension."""

import importlib

_HOME = {
    "Chip": "chip",
    "ChipError": "chip",
    "Device": "device",
    "Buffer": "device",
    "NpuError": "device",
    "Program": "program",
    "PagePool": "page_pool",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"opennpu.runtime.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
