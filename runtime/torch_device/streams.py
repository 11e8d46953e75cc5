"""Streams and events under the names of `torch.cuda`.

They are PyTorch's generic ones, which cannot be subclassed: `Stream` and `Event` make those, and know those
of the device as their instances.
"""

import torch
from opennpu.runtime.torch_device.devices import NAME, DeviceLike, index_of


class _OfTheDevice(type):
    """A class whose instances are those of its `generic` that belong to the device."""

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls.generic) and instance.device.type == NAME


class Stream(metaclass=_OfTheDevice):
    """A queue of work that runs in order, from the device's pool. `priority` has no effect.

    identity: stream_id, device_index, device_type of a stream that exists.
    """

    generic = torch.Stream

    def __new__(cls, device: DeviceLike = None, priority: int = 0, **identity) -> torch.Stream:
        if identity:
            return torch.Stream(**identity)
        return torch.Stream(device=torch.device(NAME, index_of(device)), priority=priority)


class Event(metaclass=_OfTheDevice):
    """A point in the order of a stream; `elapsed_time` (ms) needs `enable_timing=True`."""

    generic = torch.Event

    def __new__(
        cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ) -> torch.Event:
        return torch.Event(
            device=NAME, enable_timing=enable_timing, blocking=blocking, interprocess=interprocess
        )


class StreamContext:
    """Context manager: the stream is current inside; None changes nothing."""

    def __init__(self, stream: torch.Stream | None):
        self.stream = stream

    def __enter__(self):
        if self.stream is not None:
            self.device_before = torch.accelerator.current_device_index()
            self.before = torch.accelerator.current_stream(self.stream.device)
            set_stream(self.stream)

    def __exit__(self, *_):
        if self.stream is not None:
            set_stream(self.before)
            torch.accelerator.set_device_index(self.device_before)


def stream(stream: torch.Stream | None) -> StreamContext:
    return StreamContext(stream)


def set_stream(stream: torch.Stream | None) -> None:
    """Makes the stream the calling thread's current one, and its device the current device."""
    if stream is not None:
        torch.accelerator.set_stream(stream)


def is_current_stream_capturing() -> bool:
    """Never: there are no graphs of launches."""
    return False


def current_stream(device: DeviceLike = None) -> torch.Stream:
    return torch.accelerator.current_stream(index_of(device))


def default_stream(device: DeviceLike = None) -> torch.Stream:
    current = current_stream(device)
    return Stream(stream_id=0, device_index=current.device_index, device_type=current.device_type)
