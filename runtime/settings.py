"""What the environment says, read once at its first use; `docs/settings.md` is printed from here."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields

PREFIX = "OPENNPU_"


def _text(name: str, text: str) -> str:
    return text


def _flag(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1"


def _integer(least: int, most: int) -> Callable[[str, str], int]:
    def read(name: str, text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"{name} must be an integer from {least} to {most}, not {text!r}")
        return int(text)

    return read


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}")
    return seconds


def _variable(read: Callable[[str, str], object], default: object, meaning: str, otherwise: str = ""):
    """otherwise: the default in words, where its value says little."""
    metadata = {"read": read, "meaning": meaning, "otherwise": otherwise}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """A field is the variable of its name in capitals after OPENNPU_; an empty one is as none."""

    chip: str = _variable(_text, "npu1-lite", "a name in `runtime/chips/`, or the path of a chip file")
    engine: str = _variable(_text, "", "of the virtual chip: `native` or `reference`", "`native`")
    driver: str = _variable(_text, "", "path of a vendor's driver library", "the virtual chip")
    devices: int = _variable(_integer(1, 64), 1, "number of devices")
    threads: int = _variable(
        _integer(0, 1024), 0, "worker threads a device", "one a core of the chip, as far as there are CPUs"
    )
    cpu_path: str = _variable(
        _text, "", "kernels of the native engine, by name: `portable` and others", "the best that the CPU has"
    )
    hbm_bytes: int = _variable(_integer(0, 1 << 46), 0, "memory of a device, in bytes", "the chip's")
    launch_limit: float = _variable(
        _seconds, 0.0, "watchdog: seconds that one launch may run before it fails", "any time"
    )
    host_visible: bool = _variable(_flag, True, "`0`: the virtual chip hides its memory from the host")
    strict: bool = _variable(
        _flag,
        False,
        "`1`: what the chip, or the compiled program, does not do is an error",
    )
    cache_dir: str = _variable(
        _text, "", "folder of the compile cache", "`opennpu` in the user's cache folder"
    )
    report: str = _variable(_text, "", "file for the log of a server's launches (docs/sglang.md)", "none")
    eager: bool = _variable(_flag, False, "`1`: SGLang's models run operator by operator, not compiled")

    def load_chip(self):
        """The `opennpu.runtime.chip.Chip`. Raises ChipError."""
        from opennpu.runtime.chip import Chip

        return Chip.load(self.chip)


@functools.cache
def settings() -> Settings:
    """Raises ValueError for a variable that makes no sense."""
    return read(os.environ)


def read(environment) -> Settings:
    """The settings of a mapping of variables. Raises ValueError."""
    given = {}
    for known in fields(Settings):
        name = variable(known.name)
        if text := environment.get(name, "").strip():
            given[known.name] = known.metadata["read"](name, text)
    return Settings(**given)


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()
