"""The caching allocator: reuse, streams, statistics, and the end of the memory."""

import itertools

import pytest
import torch
from device_process import run
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

MIB = 1 << 20
SIZES = [1, 700, 5000, 300_000, MIB, MIB + 1, 5 * MIB]


def empty(nbytes: int) -> torch.Tensor:
    return torch.empty(nbytes, dtype=torch.uint8, device="opennpu")


@pytest.fixture(autouse=True)
def fresh():
    """No cache, and nothing of other tests in the statistics of the peak."""
    torch.opennpu.synchronize()
    torch.opennpu.empty_cache()
    torch.opennpu.reset_peak_memory_stats()
    return torch.opennpu.memory_allocated()


def test_freed_memory_is_used_again_on_its_stream():
    x = empty(3 * MIB)
    address = x.data_ptr()
    del x
    assert empty(3 * MIB).data_ptr() == address
    with torch.opennpu.stream(torch.opennpu.Stream()):
        assert empty(3 * MIB).data_ptr() != address


def test_addresses_are_aligned_and_apart():
    tensors = [empty(size) for size in (1, 3, 511, 512, 513, MIB, 3 * MIB + 1)]
    spans = sorted((t.data_ptr(), t.nbytes) for t in tensors)
    assert all(begin % 64 == 0 for begin, _ in spans)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))


def test_nothing_takes_no_memory(fresh):
    x = torch.empty(0, 5, device="opennpu")
    assert x.data_ptr() == 0 and torch.opennpu.memory_allocated() == fresh
    assert x.cpu().shape == (0, 5)


def test_statistics(fresh):
    x = empty(2 * MIB)
    assert torch.opennpu.memory_allocated() == fresh + 2 * MIB
    y = empty(1)
    assert torch.opennpu.memory_allocated() == fresh + 2 * MIB + 512
    del x, y
    assert torch.opennpu.memory_allocated() == fresh
    assert torch.opennpu.max_memory_allocated() == fresh + 2 * MIB + 512
    assert torch.opennpu.max_memory_reserved() >= torch.opennpu.memory_reserved() > fresh
    stats = torch.opennpu.memory_stats()
    assert stats["allocation.all.current"] == stats["active.all.current"]
    assert stats["allocated_bytes.large_pool.peak"] >= 2 * MIB
    torch.opennpu.reset_peak_memory_stats()
    assert torch.opennpu.max_memory_allocated() == fresh
    assert "allocated_bytes all" in torch.opennpu.memory_summary()


def test_the_generic_functions_agree(fresh):
    x = empty(MIB)
    assert torch.accelerator.memory_allocated() == torch.opennpu.memory_allocated() == fresh + x.nbytes
    assert torch.accelerator.max_memory_allocated() == torch.opennpu.max_memory_allocated()
    assert torch.accelerator.memory_stats() == torch.opennpu.memory_stats()
    torch.accelerator.reset_accumulated_memory_stats()
    assert torch.opennpu.memory_stats()["allocation.all.allocated"] == 0
    assert torch.accelerator.get_memory_info() == torch.opennpu.mem_get_info()


def test_empty_cache_gives_the_memory_back_to_the_chip():
    before = torch.opennpu.mem_get_info()[0]
    x, y = empty(30 * MIB), empty(2 * MIB)
    assert torch.opennpu.mem_get_info()[0] == before - 50 * MIB, "y has a segment of 20 MiB"
    del x
    assert torch.opennpu.mem_get_info()[0] == before - 50 * MIB
    torch.opennpu.empty_cache()
    assert torch.opennpu.mem_get_info()[0] == before - 20 * MIB
    del y
    torch.opennpu.empty_cache()
    assert torch.opennpu.mem_get_info()[0] == before


def test_memory_that_another_stream_uses_is_not_used_again():
    side = torch.opennpu.Stream()
    source = empty(32 * MIB).zero_()
    target = torch.empty_like(source)
    address = source.data_ptr()
    torch.opennpu.synchronize()
    with torch.opennpu.stream(side):
        for _ in range(60):
            target.copy_(source)
    source.record_stream(side)
    del source
    other = empty(32 * MIB)
    assert not side.query(), "the copies must outlast the allocation for the test to mean something"
    assert other.data_ptr() != address
    side.synchronize()
    assert empty(32 * MIB).data_ptr() == address


def test_record_stream_of_its_own_stream_delays_nothing():
    x = empty(3 * MIB)
    address = x.data_ptr()
    x.record_stream(torch.opennpu.current_stream())
    del x
    assert empty(3 * MIB).data_ptr() == address


def test_a_constant_lives_as_long_as_another_stream_reads_it():
    """The table of constants is emptied while a launch that reads one of them is queued."""
    x = torch.zeros(1, device="opennpu")
    side = torch.opennpu.Stream()
    source = empty(32 * MIB).zero_()
    target = torch.empty_like(source)
    values = map(float, itertools.count(1_000_000))

    def fill_until_emptied() -> int:
        for filled in itertools.count(1):
            before = torch.opennpu.memory_allocated()
            x.fill_(next(values))
            if torch.opennpu.memory_allocated() < before:
                return filled

    ones = torch.ones(64, device="opennpu")
    fill_until_emptied()
    assert (ones + 0.375).tolist() == [1.375] * 64  # in the table, from this stream
    for _ in range(4085):
        x.fill_(next(values))
    torch.opennpu.synchronize()
    with torch.opennpu.stream(side):
        for _ in range(60):
            target.copy_(source)
        result = ones + 0.375
    assert fill_until_emptied() < 20
    others = [torch.full((1,), 7.0).to("opennpu") for _ in range(20)]  # in the memory of the constants
    assert not side.query(), "the copies must outlast the rest for the test to mean something"
    side.synchronize()
    assert result.tolist() == [1.375] * 64
    del others


def test_the_snapshot_lists_segments_and_blocks():
    x, y = empty(3 * MIB), empty(1000)
    segments = {segment["segment_type"]: segment for segment in torch.opennpu.memory_snapshot()}
    assert sum(s["total_size"] for s in torch.opennpu.memory_snapshot()) == torch.opennpu.memory_reserved()
    for tensor, kind in ((x, "large"), (y, "small")):
        (block,) = [
            block
            for segment in torch.opennpu.memory_snapshot()
            for block in segment["blocks"]
            if block["address"] == tensor.data_ptr()
        ]
        assert block["requested_size"] == tensor.nbytes <= block["size"]
        assert block["state"] == "active_allocated" and segments[kind]["device"] == 0
    address = x.data_ptr()
    del x
    blocks = [block for s in torch.opennpu.memory_snapshot() for block in s["blocks"]]
    assert {"inactive"} == {b["state"] for b in blocks if b["address"] == address}
    active = sum(block["size"] for block in blocks if block["state"] == "active_allocated")
    assert active == torch.opennpu.memory_allocated()


def test_a_limit_of_the_memory(fresh):
    total = torch.opennpu.mem_get_info()[1]
    with pytest.raises(ValueError, match="from 0 to 1"):
        torch.opennpu.set_per_process_memory_fraction(1.5)
    torch.opennpu.set_per_process_memory_fraction((torch.opennpu.memory_reserved() + 40 * MIB) / total)
    try:
        x = empty(30 * MIB)
        with pytest.raises(torch.opennpu.OutOfMemoryError, match="set_per_process_memory_fraction allows"):
            empty(30 * MIB)
        del x
        assert empty(40 * MIB).nbytes == 40 * MIB, "what was cached counts no more"
    finally:
        torch.opennpu.set_per_process_memory_fraction(1.0)
    assert empty(80 * MIB).nbytes == 80 * MIB


class Model:
    """Live tensors, filled with their number."""

    def __init__(self):
        self.live: dict[int, torch.Tensor] = {}

    def allocate(self, number: int, nbytes: int) -> None:
        host = torch.full((nbytes,), number % 251, dtype=torch.uint8)
        self.live[number] = host.to("opennpu")

    def check(self) -> None:
        for number, tensor in self.live.items():
            assert tensor.cpu().eq(number % 251).all()


@hypothesis_settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 9))))
def test_live_tensors_never_share_memory(steps):
    """Any order of allocations and frees, from small blocks to segments."""
    model = Model()
    before = torch.opennpu.memory_allocated()
    for number, (nbytes, dropped) in enumerate(steps):
        model.allocate(number, nbytes)
        model.live.pop(dropped, None)
    model.check()
    model.live.clear()
    assert torch.opennpu.memory_allocated() == before


def test_out_of_memory_is_clear_and_survived():
    run(
        """
        import torch
        def empty(mib):
            return torch.empty(mib << 20, dtype=torch.uint8, device="opennpu")
        kept = empty(40)
        dropped = empty(15)
        del dropped
        try:
            empty(30)
        except torch.OutOfMemoryError as error:
            text = str(error)
        for part in ("Tried to allocate 30.00 MiB", "opennpu:0", "capacity of 64.00 MiB",
                     "40.00 MiB is allocated by PyTorch", "OPENNPU_HBM_BYTES"):
            assert part in text, text
        stats = torch.opennpu.memory_stats()
        assert stats["num_ooms"] == 1 and stats["num_alloc_retries"] == 1
        # The cache has been given back, so that other sizes fit now, on any stream.
        with torch.opennpu.stream(torch.opennpu.Stream()):
            other = empty(23)
        del other
        assert empty(20).nbytes == 20 << 20  # the cache of the other stream is freed for it
        assert torch.opennpu.memory_stats()["num_ooms"] == 1
        """,
        OPENNPU_HBM_BYTES=64 * MIB,
    )


def test_a_chip_smaller_than_a_segment():
    run(
        """
        import torch
        tensors = [torch.empty(100_000, dtype=torch.uint8, device="opennpu") for _ in range(9)]
        assert len({t.data_ptr() for t in tensors}) == 9
        """,
        OPENNPU_HBM_BYTES=1 << 20,
    )


def test_memory_events_reach_the_profiler():
    with torch.profiler.profile(profile_memory=True) as profile:
        x = empty(MIB)
        del x
    total = sum(event.self_device_memory_usage for event in profile.key_averages())
    assert total == 0 and any(event.name == "[memory]" for event in profile.events())
