"""`lab`: a fresh laboratory for single instructions, on each engine and on the interpreter of `npu_tile`."""

import zlib
from functools import cache

import pytest
import torch
from chip_lab import CHIP, Lab
from interpreter_lab import InterpreterLab
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.device import Device

ENGINES = ("reference", "native")


@cache
def device(engine: str) -> Device:
    return Device(CHIP, engine=engine)


def pytest_generate_tests(metafunc):
    """The interpreter has the instructions of engines, which have a file each; it has no sequencer."""
    if "lab" in metafunc.fixturenames:
        name = metafunc.module.__name__.rpartition(".")[2].removeprefix("test_")
        interpreted = name in ISA.by_name and ISA[name].is_engine
        engines = (*ENGINES, "interpreter") if interpreted else ENGINES
        metafunc.parametrize("lab", engines, indirect=True)


@pytest.fixture
def one_torch_thread():
    """The tensors are small: waking PyTorch's threads costs more than the copies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lab(request, one_torch_thread) -> Lab:
    """Seeded by the name of the test."""
    seed = zlib.crc32(request.node.nodeid.encode())
    return InterpreterLab(seed) if request.param == "interpreter" else Lab(seed, device(request.param))
