"""`lab`: a fresh laboratory for single instructions, on each engine."""

import zlib

import pytest
import torch
from chip_lab import CHIP, Lab
from opennpu.runtime.device import Device


@pytest.fixture(scope="session", params=["reference", "native"])
def device(request) -> Device:
    return Device(CHIP, engine=request.param)


@pytest.fixture
def one_torch_thread():
    """The tensors are small: waking PyTorch's threads costs more than the copies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lab(request, device, one_torch_thread) -> Lab:
    """Seeded by the name of the test."""
    return Lab(device, zlib.crc32(request.node.nodeid.encode()))
