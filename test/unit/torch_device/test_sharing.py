"""One chip, two users: PyTorch's device and opennpu.runtime."""

import numpy as np
import pytest
import torch
from image_builder import copy_program
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import KvSpec


@pytest.fixture
def device() -> Device:
    return Device.from_torch(0)


def test_the_memory_is_one(device):
    total, free = device.total_bytes, device.free_bytes
    assert (free, total) == torch.opennpu.mem_get_info()
    buffer = device.alloc(1 << 20)
    assert torch.opennpu.mem_get_info()[0] == free - (1 << 20)
    x = torch.ones(1000, dtype=torch.uint8, device="opennpu")
    assert not buffer.address <= x.data_ptr() < buffer.address + buffer.bytes
    del buffer
    assert torch.opennpu.mem_get_info()[1] == total


def test_work_of_both(device):
    buffer, stream = device.alloc(4096), device.stream()
    data = np.arange(4096).astype(np.uint8)
    stream.copy_in(buffer, 0, data)
    x = torch.arange(100).to("opennpu")
    stream.synchronize()
    back = np.zeros(4096, np.uint8)
    stream.copy_out(back, buffer, 0)
    stream.synchronize()
    assert np.array_equal(back, data) and torch.equal(x.cpu(), torch.arange(100))
    assert device.counters() == torch.opennpu.counters()


def test_work_that_fails_is_reported_by_the_synchronisation(device):
    program, stream = device.load(copy_program()), device.stream()
    source, target = device.alloc(256), device.alloc(256)
    stream.launch(program, [(source, 0, 256), (target, 0, 256), 99])
    with pytest.raises(RuntimeError, match=r"opennpu: .*HBM address"):
        torch.opennpu.synchronize()
    torch.opennpu.synchronize()
    assert torch.arange(10).to("opennpu").tolist() == list(range(10))


def test_dropping_it_leaves_the_device_open():
    x = torch.arange(10).to("opennpu")
    for _ in range(3):
        borrowed = Device.from_torch()
        assert borrowed.chip.name == torch.opennpu.get_device_name() and borrowed.core.driver == "virtual"
        del borrowed
    assert torch.equal(x.cpu(), torch.arange(10))


def test_a_page_pool_beside_tensors(device):
    before = torch.opennpu.mem_get_info()[0]
    kv = KvSpec(layers=2, kv_heads=2, head_dim=16, v_head_dim=16, dtype="bf16")
    pool = PagePool(device, kv, page_size=16, pages=8)
    assert torch.opennpu.mem_get_info()[0] == before - pool.memory.bytes
    pages = pool.alloc(2)
    data = np.random.default_rng(0).integers(0, 256, (2, pool._core.page_bytes)).astype(np.uint8)
    pool.import_pages(pages, data)
    assert np.array_equal(pool.export_pages(pages), data)


def test_a_failure_is_an_error_of_the_runtime(device):
    with pytest.raises(NpuError, match="out of HBM"):
        device.alloc(1 << 45)
