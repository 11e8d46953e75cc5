"""Places in PyTorch that do not ask the device, and so are told here."""

import functools
from multiprocessing.reduction import ForkingPickler

import torch
from opennpu.runtime.torch_device.devices import NAME


def adjust() -> None:
    torch._tensor_str._tensor_str = _print_on_host(torch._tensor_str._tensor_str)
    torch.Tensor.__dlpack_device__ = _name_in_dlpack(torch.Tensor.__dlpack_device__)
    _send_storages_by_value()


def _print_on_host(original):
    """Printing runs a dozen small operators on slices of the tensor: not worth a program each."""

    @functools.wraps(original)
    def tensor_str(self, indent):
        return original(self.cpu() if self.device.type == NAME else self, indent)

    return tensor_str


def _name_in_dlpack(original):
    """PyTorch 2.13 knows the device there by its name before the renaming only."""

    @functools.wraps(original)
    def dlpack_device(self):
        if type(self) is torch.Tensor and self.device.type == NAME:
            return torch.utils.dlpack.DLDeviceType.kDLExtDev, self.device.index
        return original(self)

    return dlpack_device


def _send_storages_by_value() -> None:
    """Another process does not see the chip's memory: it gets a copy, on its device of the same index."""
    reduce_host = torch.multiprocessing.reductions.reduce_storage

    def reduce(storage):
        if storage.device.type == NAME:
            return _rebuild, (storage.cpu(), storage.device)
        return reduce_host(storage)

    ForkingPickler.register(torch.UntypedStorage, reduce)


def _rebuild(storage: torch.UntypedStorage, device: torch.device) -> torch.UntypedStorage:
    return storage.to(device=device)
