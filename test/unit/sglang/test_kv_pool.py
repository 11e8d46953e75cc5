"""SGLang's KV pool on the device against tensors of the host."""

import os

import pytest
import torch

os.environ.setdefault("SGLANG_PLATFORM", "opennpu")

from opennpu.sglang_integration.kv_pool import OpenNpuKvPool

LAYERS, HEADS, DIM, V_DIM, SIZE = 2, 2, 16, 8, 64
SLOTS = [17, 3, 40, 79, 18]  # any order, the last one there is for pages of 16


class Layer:
    layer_id = 1


@pytest.fixture(params=[(1, torch.float32), (16, torch.bfloat16)], ids=["pages of 1", "pages of 16"])
def pool(request) -> OpenNpuKvPool:
    page_size, dtype = request.param
    size = SIZE if page_size > 1 else 79
    return OpenNpuKvPool(
        size=size,
        page_size=page_size,
        dtype=dtype,
        head_num=HEADS,
        head_dim=DIM,
        v_head_dim=V_DIM,
        layer_num=LAYERS,
        device="opennpu",
        enable_memory_saver=False,
    )


@pytest.fixture
def rows(pool):
    """Keys and values of SLOTS."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(len(SLOTS), HEADS, d, generator=generator).to(pool.dtype) for d in (DIM, V_DIM)]


def write(pool, rows) -> torch.Tensor:
    slots = torch.tensor(SLOTS, device="opennpu")
    pool.set_kv_buffer(Layer, slots, *(x.to("opennpu") for x in rows))
    return slots


def at(buffer: torch.Tensor, page_size: int, slots: list[int]) -> torch.Tensor:
    host = buffer.cpu()
    return torch.stack([host[slot // page_size, slot % page_size] for slot in slots])


def test_the_buffers_are_the_pages_of_the_runtime(pool, rows):
    write(pool, rows)
    torch.opennpu.synchronize()
    for buffer, page_view, expected in zip(pool.get_kv_buffer(1), pool.page_pool.views(1), rows, strict=True):
        assert torch.equal(at(buffer, pool.page_size, SLOTS), expected)
        assert torch.equal(at(page_view, pool.page_size, SLOTS), expected)
    assert not pool.get_key_buffer(0).cpu().any(), "another layer"


def test_a_copy_on_the_host_comes_back_elsewhere(pool, rows):
    slots = write(pool, rows)
    copy = pool.get_cpu_copy(slots)
    assert len(copy) == LAYERS
    assert all(torch.equal(got, expected) for got, expected in zip(copy[1], rows, strict=True))
    others = [20, 33, 1, 2, 64]
    pool.load_cpu_copy(copy, torch.tensor(others, device="opennpu"))
    for buffer, expected in zip(pool.get_kv_buffer(1), rows, strict=True):
        assert torch.equal(at(buffer, pool.page_size, others), expected)
        assert torch.equal(at(buffer, pool.page_size, SLOTS), expected)


def test_moved_slots(pool, rows):
    slots = write(pool, rows)
    pool.move_kv_cache(slots + torch.tensor([1, 1, 1, -1, 1], device="opennpu"), slots)
    moved = [18, 4, 41, 78, 19]
    for buffer, expected in zip(pool.get_kv_buffer(1), rows, strict=True):
        assert torch.equal(at(buffer, pool.page_size, moved), expected)


def test_what_sglang_asks_of_a_pool(pool):
    k_bytes, v_bytes = pool.get_kv_size_bytes()
    tokens = pool.size + pool.page_size
    assert (k_bytes, v_bytes) == tuple(
        LAYERS * tokens * HEADS * d * pool.dtype.itemsize for d in (DIM, V_DIM)
    )
    infos = pool.get_device_pool_infos()
    assert infos[0].buffer_info.page_size == pool.page_size


def test_too_many_tokens():
    with pytest.raises(MemoryError, match="--mem-fraction-static"):
        OpenNpuKvPool(
            size=1 << 34,
            page_size=16,
            dtype=torch.float32,
            head_num=8,
            head_dim=128,
            layer_num=32,
            device="opennpu",
            enable_memory_saver=False,
        )
