"""`lab`: a fresh laboratory for single instructions, on each engine."""

import zlib

import pytest
from chip_lab import CHIP, Lab

from opennpu.runtime.device import Device


@pytest.fixture(scope="session", params=["reference", "native"])
def device(request) -> Device:
    return Device(CHIP, engine=request.param)


@pytest.fixture
def lab(request, device) -> Lab:
    """Seeded by the name of the test."""
    return Lab(device, zlib.crc32(request.node.nodeid.encode()))
