"""Random numbers of the devices: a Mersenne twister each, on the host, as the CPU's."""

from collections.abc import Iterable

import torch
from opennpu.runtime import _torch
from opennpu.runtime.torch_device.devices import NAME, DeviceLike, device_count, index_of


def default_generator(device: DeviceLike = None) -> torch.Generator:
    return _torch.default_generator(index_of(device))


def manual_seed(seed: int) -> None:
    """Seeds the current device's generator."""
    default_generator().manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        default_generator(index).manual_seed(int(seed))


def seed() -> None:
    """A random seed for the current device's generator."""
    default_generator().seed()


def seed_all() -> None:
    """One random seed for all devices."""
    manual_seed_all(default_generator().seed())


def initial_seed() -> int:
    return default_generator().initial_seed()


def get_rng_state(device: DeviceLike = NAME) -> torch.Tensor:
    """The generator's state, a uint8 tensor on the host."""
    return default_generator(device).get_state()


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: torch.Tensor, device: DeviceLike = NAME) -> None:
    default_generator(device).set_state(new_state)


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
