"""The driver of faulty_driver.cpp: built once, given orders through a file or a call."""

import ctypes
import functools
import os
import re
import subprocess
import tempfile
from pathlib import Path

from opennpu.runtime import _core
from opennpu.runtime.device import Device

ROOT = Path(__file__).parents[2]
CHIP = Path(_core.__file__).parent / "libnpu_virtual.so"
STATUSES = {
    name.lower(): int(number)
    for name, number in re.findall(
        r"NPU_ERROR_(\w+) = (\d+)", (ROOT / "runtime/include/opennpu/npu.h").read_text()
    )
}
"""Name of a failure, as `NpuError.status` has it → its number."""


@functools.cache
def library() -> Path:
    """The driver's shared library, compiled against npu.h alone, like any vendor's."""
    if built := os.environ.get("OPENNPU_DRIVER"):
        return Path(built)  # in a process with the environment of below
    folder = Path(tempfile.mkdtemp(prefix="faulty_driver_"))
    path, source = folder / "libfaulty.so", Path(__file__).with_suffix(".cpp")
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    include = f"-I{ROOT / 'runtime/include'}"
    subprocess.run(["c++", *flags, include, source, "-o", path, "-ldl"], check=True)
    os.environ["FAULTY_DRIVER_CHIP"] = str(CHIP)
    return path


PATHS = (Path(__file__).parent,)
"""What a process of its own needs on its path to import this module."""


def environment(order: Path) -> dict[str, str]:
    """For a process whose torch device is to fail when the file `order` appears."""
    return {
        "OPENNPU_DRIVER": str(library()),
        "FAULTY_DRIVER_CHIP": str(CHIP),
        "FAULTY_DRIVER_ORDER": str(order),
    }


def order(function: str, status: str | None = None, call: int = 1, what: str = "") -> str:
    """An order for the call-th call of the function: to fail with a status, or to do `what`."""
    return f"{function} {call} {what or STATUSES[status or 'internal']}"


def give(text: str) -> None:
    """Gives an order to the drivers of this process; an empty one takes it back."""
    ctypes.CDLL(str(library())).faulty_driver_order(text.encode())


def write(path: Path, text: str) -> None:
    """Gives an order to the process that has this file in its environment; it appears whole."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def carried_out(path: Path) -> bool:
    """Whether an order of this file has been carried out since the last time this was asked."""
    done = path.with_name(path.name + ".done")
    seen = done.exists()
    done.unlink(missing_ok=True)
    return seen


def device(**options) -> Device:
    return Device("npu1-lite", driver=library(), **options)
