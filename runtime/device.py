"""A chip that has been opened, and its memory as tensors."""

import math
from pathlib import Path

import torch
from opennpu.runtime.chip import Chip
from opennpu.runtime.dtypes import DTYPES

try:
    from opennpu.runtime._core import Buffer, Event, NpuError, Stream
    from opennpu.runtime._core import Device as _Device
    from opennpu.runtime._core import Program as LoadedProgram
except ImportError as error:
    raise ImportError(
        "the compiled part of opennpu.runtime is missing: install the package, or build it in the "
        "source tree with `cmake -S . -B build/cpp -G Ninja && ninja -C build/cpp`"
    ) from error

__all__ = ["Buffer", "Device", "Event", "LoadedProgram", "NpuError", "Stream", "tensor_view"]


class Device:
    """An open device: the virtual chip, or a vendor's driver library.

    chip: name, path of a chip file, or Chip. engine: "native" (fast) or "reference" (bit-exact).
    threads: worker threads, None for one a core as far as there are CPUs. race_check: run every
    launch under the race checker. hbm_bytes: less or more memory than the chip's. max_instructions:
    watchdog per core and launch. launch_limit: watchdog, the seconds that a launch may run (None: any); one
    that runs longer fails with the status "timeout". hide_memory: the host reaches the memory by copies
    only. driver: path of a shared library that exports `npu_get_driver`.
    Raises ChipError, NpuError, ValueError.
    """

    def __init__(
        self,
        chip: str | Path | Chip = "npu1-lite",
        engine: str = "native",
        threads: int | None = None,
        race_check: bool = False,
        hbm_bytes: int | None = None,
        max_instructions: int | None = None,
        launch_limit: float | None = None,
        hide_memory: bool = False,
        driver: str | Path | None = None,
    ):
        if launch_limit is not None and not 0 < launch_limit < 1e9:
            raise ValueError(f"launch_limit: {launch_limit} is no time in seconds")
        self.chip = Chip.load(chip)
        self.engine = engine
        self.core = _Device(
            self.chip,
            engine=engine,
            threads=threads or 0,
            race_check=race_check,
            hbm_bytes=hbm_bytes or 0,
            max_instructions=max_instructions or 0,
            launch_limit=launch_limit or 0.0,
            hide_memory=hide_memory,
            driver=str(driver or ""),
        )

    @classmethod
    def from_torch(cls, index: int | None = None) -> "Device":
        """The chip that is PyTorch's device `opennpu:index` (None: the current one), shared with it.

        Buffers made here lie in the same memory as its tensors; work here and there is ordered by
        synchronising only.
        """
        device = cls.__new__(cls)
        device.chip = Chip.load(torch.opennpu.settings().chip)
        device.engine = torch.opennpu.settings().engine or "native"
        index = torch.opennpu.current_device() if index is None else index
        device.core = _Device.adopt(*torch.opennpu.native_handles(index))
        return device

    def alloc(self, nbytes: int) -> Buffer:
        """HBM of `nbytes` > 0 bytes, contents undefined, freed with its last reference."""
        return Buffer(self.core, nbytes)

    def stream(self) -> Stream:
        return Stream(self.core)

    def event(self) -> Event:
        return Event(self.core)

    def load(self, image: bytes) -> LoadedProgram:
        """Checks and loads a program image. Raises NpuError (invalid_program, wrong_chip)."""
        return LoadedProgram(self.core, image)

    def synchronize(self) -> None:
        """Waits for all streams; raises the first failure."""
        self.core.synchronize()

    def counters(self) -> dict[str, int]:
        """Totals over the completed launches: see npu_counters in npu.h."""
        return self.core.counters()

    def reset_counters(self) -> None:
        self.core.reset_counters()

    @property
    def total_bytes(self) -> int:
        return self.core.memory_info()[0]

    @property
    def free_bytes(self) -> int:
        return self.core.memory_info()[1]


def tensor_view(buffer: Buffer, dtype: str, shape: tuple[int, ...], offset: int = 0) -> torch.Tensor:
    """The buffer's own memory as a contiguous tensor; keeps the buffer alive.

    dtype is a name of the instruction set; offset is in bytes, a multiple of the element size.
    Raises ValueError when the tensor does not fit.
    """
    torch_dtype = DTYPES[dtype]
    nbytes = math.prod(shape) * torch_dtype.itemsize
    if offset < 0 or offset % torch_dtype.itemsize or offset + nbytes > buffer.bytes:
        raise ValueError(f"{dtype} {list(shape)} at byte {offset} does not fit {buffer.bytes} bytes")
    raw = torch.from_numpy(buffer.numpy())[offset : offset + nbytes]
    return raw.view(torch_dtype).view(shape)
