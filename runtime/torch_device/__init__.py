"""The module `torch.opennpu`: the chip as a PyTorch device (docs/torch_device.md)."""

import torch
from opennpu.runtime import _torch
from opennpu.runtime.torch_device.settings import settings

_torch.set_up(settings)


def is_available() -> bool:
    return device_count() > 0


def device_count() -> int:
    return _torch.device_count()


def current_device() -> int:
    """Index of the calling thread's current device."""
    return torch.accelerator.current_device_index()


def _is_in_bad_fork() -> bool:
    return _torch.in_bad_fork()


def manual_seed_all(seed: int) -> None:
    pass
