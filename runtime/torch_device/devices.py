"""Devices: which there are, which is current, what they are, what they have done."""

from dataclasses import dataclass

import torch
from opennpu.runtime import _torch
from opennpu.runtime.settings import settings

NAME = "opennpu"
DeviceLike = torch.device | str | int | None


@dataclass(frozen=True)
class DeviceProperties:
    """What the chip file says of a device; sizes in bytes. `multi_processor_count` is the number of cores."""

    name: str
    total_memory: int
    multi_processor_count: int
    clock_mhz: int
    spm_bytes: int
    acc_bytes: int
    mx_k: int
    mx_n: int


def index_of(device: DeviceLike = None) -> int:
    """The index of a device given in any way; None and "opennpu" mean the current one.

    Raises ValueError for a device of another type.
    """
    if isinstance(device, int):
        return device
    if device is None:
        return current_device()
    device = torch.device(device)
    if device.type != NAME:
        raise ValueError(f"expected a device of type {NAME}, got {str(device)!r}")
    return current_device() if device.index is None else device.index


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    """Whether a chip has been opened."""
    return any(_torch.is_open(index) for index in range(device_count()))


def init() -> None:
    """Opens the current device, which its first use does otherwise."""
    native_handles()


def device_count() -> int:
    return _torch.device_count()


def current_device() -> int:
    """Index of the calling thread's current device."""
    return _torch.current_device()


def set_device(device: DeviceLike) -> None:
    """Makes a device the calling thread's current one; a negative index changes nothing."""
    index = index_of(device)
    if index >= 0:
        _torch.set_device(index)


class device:
    """Context manager: `with torch.opennpu.device(1):` makes device 1 the current one inside."""

    def __init__(self, device: DeviceLike):
        self.idx = index_of(device)
        self.prev_idx = -1

    def __enter__(self):
        self.prev_idx = current_device()
        set_device(self.idx)
        return self

    def __exit__(self, *_):
        set_device(self.prev_idx)


class device_of(device):
    """Context manager: the current device is that of a tensor or storage; no change for one of the CPU."""

    def __init__(self, obj):
        super().__init__(obj.device if obj.device.type == NAME else -1)


def _exchange_device(index: int) -> int:
    """Sets the current device and returns the one before; a negative index changes nothing."""
    before = current_device()
    set_device(index)
    return before


_maybe_exchange_device = _exchange_device


def synchronize(device: DeviceLike = None) -> None:
    """Waits for all work of all streams of the device. Raises RuntimeError when some of it has failed."""
    _torch.synchronize(index_of(device))


def get_device_properties(device: DeviceLike = None) -> DeviceProperties:
    index = index_of(device)
    if not 0 <= index < device_count():
        raise ValueError(f"there is no device {NAME}:{index}")
    chip = settings().load_chip()
    return DeviceProperties(
        name=chip.name,
        total_memory=settings().hbm_bytes or chip.hbm_bytes,
        multi_processor_count=chip.cores,
        clock_mhz=chip.clock_mhz,
        spm_bytes=chip.spm_bytes,
        acc_bytes=chip.acc_bytes,
        mx_k=chip.mx_k,
        mx_n=chip.mx_n,
    )


def get_device_name(device: DeviceLike = None) -> str:
    return get_device_properties(device).name


def can_device_access_peer(device: DeviceLike, peer_device: DeviceLike) -> bool:
    """Never: between chips data goes through the host."""
    for name in (device, peer_device):
        get_device_properties(name)  # raises for one that does not exist
    return False


def counters(device: DeviceLike = None) -> dict[str, int]:
    """Totals over the completed launches: `npu_counters` in npu.h."""
    return _torch.counters(index_of(device))


def reset_counters(device: DeviceLike = None) -> None:
    _torch.reset_counters(index_of(device))


def native_handles(device: DeviceLike = None) -> tuple:
    """The driver's table and the open device as capsules "npu_driver" and "npu_device", both borrowed.

    For code that drives the same chip directly: `opennpu.runtime.device.Device.from_torch`.
    """
    return _torch.handles(index_of(device))


def _is_in_bad_fork() -> bool:
    return _torch.in_bad_fork()
