"""What the environment says about the device, read once at its first use.

| variable | meaning |
|---|---|
| `OPENNPU_CHIP` | chip: a name in `runtime/chips/`, or the path of a chip file; default `npu1-lite` |
| `OPENNPU_ENGINE` | engine of the virtual chip: `native` (default) or `reference` |
| `OPENNPU_DRIVER` | path of a vendor's driver library; default: the virtual chip |
| `OPENNPU_DEVICES` | number of devices; default 1 |
| `OPENNPU_THREADS` | worker threads a device; default: one a core of the chip, as far as there are CPUs |
| `OPENNPU_HBM_BYTES` | memory of a device instead of the chip's, in bytes |
| `OPENNPU_HOST_VISIBLE` | `0`: the virtual chip hides its memory from the host; default `1` |
| `OPENNPU_STRICT` | `1`: what the chip does not do is an error instead of running on the host; default `0` |
| `OPENNPU_CACHE_DIR` | folder of the compile cache; default `opennpu` in the user's cache folder |
"""

import functools
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The table above, in its order; an empty text or 0 means the default."""

    chip: str
    engine: str
    driver: str
    devices: int
    threads: int
    hbm_bytes: int
    host_visible: bool
    strict: bool
    cache_dir: Path

    def load_chip(self):
        """The `opennpu.runtime.chip.Chip`. Raises ChipError."""
        from opennpu.runtime.chip import Chip

        return Chip.load(self.chip)


@functools.cache
def settings() -> Settings:
    """Raises ValueError for a variable that makes no sense."""
    environment = os.environ
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Settings(
        chip=environment.get("OPENNPU_CHIP") or "npu1-lite",
        engine=environment.get("OPENNPU_ENGINE", ""),
        driver=environment.get("OPENNPU_DRIVER", ""),
        devices=_integer("OPENNPU_DEVICES", 1, least=1, most=64),
        threads=_integer("OPENNPU_THREADS", 0, most=1024),
        hbm_bytes=_integer("OPENNPU_HBM_BYTES", 0, most=1 << 46),
        host_visible=_flag("OPENNPU_HOST_VISIBLE", True),
        strict=_flag("OPENNPU_STRICT", False),
        cache_dir=Path(environment.get("OPENNPU_CACHE_DIR") or Path(cache) / "opennpu"),
    )


def _integer(name: str, default: int, least: int = 0, most: int = 0) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, not {text!r}")
    return int(text)


def _flag(name: str, default: bool) -> bool:
    text = os.environ.get(name, "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1" if text else default
