"""Streams, events and threads. Copies stand for work: they take time and run in stream order."""

import threading
import time

import pytest
import torch
from device_process import run
from thread_work import main

MIB = 1 << 20


def busy(stream: torch.Stream, copies: int = 30) -> torch.Tensor:
    """Queues work of some hundredths of a second; its memory, to be kept until then."""
    with torch.opennpu.stream(stream):
        pair = torch.empty(2, 32 * MIB, dtype=torch.uint8, device="opennpu")
        for _ in range(copies):
            pair[0].copy_(pair[1])
    return pair


def test_the_current_stream():
    default = torch.opennpu.default_stream()
    assert torch.opennpu.current_stream() == default == torch.accelerator.current_stream()
    side = torch.opennpu.Stream()
    assert side != default
    with torch.opennpu.stream(side):
        assert torch.opennpu.current_stream() == side
        with torch.opennpu.stream(None):
            assert torch.opennpu.current_stream() == side
        with default:
            assert torch.opennpu.current_stream() == default
        assert torch.opennpu.current_stream() == side
    assert torch.opennpu.current_stream() == default
    torch.opennpu.set_stream(side)
    assert torch.accelerator.current_stream() == side
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.opennpu.current_stream()))
    thread.start()
    thread.join()
    assert seen == [default]
    torch.opennpu.set_stream(default)


def test_the_pool_is_used_in_turn():
    assert len({torch.opennpu.Stream().stream_id for _ in range(64)}) == 32
    assert torch.Stream(device="opennpu").device == torch.device("opennpu:0")


def test_streams_and_events_have_their_types():
    stream, event = torch.opennpu.Stream(), torch.opennpu.Event()
    assert isinstance(stream, torch.opennpu.Stream) and isinstance(event, torch.opennpu.Event)
    assert isinstance(torch.opennpu.current_stream(), torch.opennpu.Stream)
    event.record(stream)
    assert isinstance(event, torch.opennpu.Event)
    assert not isinstance(event, torch.opennpu.Stream) and not isinstance(None, torch.opennpu.Event)
    assert not torch.opennpu.is_current_stream_capturing()


def test_query_and_synchronize():
    side = torch.opennpu.Stream()
    memory = busy(side)
    assert not side.query()
    assert torch.opennpu.current_stream().query(), "the streams are independent"
    side.synchronize()
    assert side.query()
    del memory


def test_device_synchronisation_waits_for_all_streams():
    sides = [torch.opennpu.Stream() for _ in range(3)]
    memory = [busy(side, 10) for side in sides]
    torch.opennpu.synchronize()
    assert all(side.query() for side in sides)
    del memory


@pytest.mark.parametrize("way", ["wait_stream", "wait_event", "event_wait"])
def test_a_stream_waits_for_another(way):
    first, second = torch.opennpu.Stream(), torch.opennpu.Stream()
    memory = busy(first)
    with torch.opennpu.stream(first):
        x = torch.arange(1000, device="opennpu")
        y = torch.zeros_like(x)
        y.copy_(x)
    if way == "wait_stream":
        second.wait_stream(first)
    elif way == "wait_event":
        second.wait_event(first.record_event())
    else:
        event = torch.opennpu.Event()
        event.record(first)
        event.wait(second)
    with torch.opennpu.stream(second):
        assert torch.equal(y.cpu(), torch.arange(1000))
    del memory


def test_events():
    side = torch.opennpu.Stream()
    start, end = (torch.opennpu.Event(enable_timing=True) for _ in range(2))
    assert start.query()
    before = time.monotonic()
    start.record(side)
    memory = busy(side)
    end.record(side)
    assert not end.query()
    with pytest.raises(RuntimeError):
        start.elapsed_time(end)
    end.synchronize()
    assert end.query()
    assert 0 < start.elapsed_time(end) < 1e3 * (time.monotonic() - before)
    assert end.elapsed_time(start) == -start.elapsed_time(end)
    del memory


def test_an_event_without_timing_or_record_has_no_time():
    timed, untimed = torch.opennpu.Event(enable_timing=True), torch.opennpu.Event()
    timed.record()
    untimed.record()
    torch.opennpu.synchronize()
    with pytest.raises(ValueError, match="enable_timing"):
        timed.elapsed_time(untimed)
    with pytest.raises(ValueError, match="recorded"):
        timed.elapsed_time(torch.opennpu.Event(enable_timing=True))


def test_an_event_may_go_before_it_happens():
    side = torch.opennpu.Stream()
    memory = busy(side)
    event = side.record_event()
    torch.opennpu.current_stream().wait_event(event)
    del event
    torch.opennpu.synchronize()
    del memory


def test_waiting_lets_other_python_threads_run():
    side = torch.opennpu.Stream()
    ticks = []
    thread = threading.Thread(target=lambda: [ticks.append(time.monotonic()) for _ in range(1000)])
    memory = busy(side, 60)
    thread.start()
    side.synchronize()
    done = time.monotonic()
    thread.join()
    assert ticks[-1] < done
    del memory


def test_threads_on_streams_of_their_own():
    assert main(steps=40) == 0


def test_threads_open_the_chip_once():
    run("""
        import threading, torch
        barrier = threading.Barrier(8)
        totals = []
        def first_use(i):
            barrier.wait()
            totals.append(int(torch.full((10,), i).to("opennpu").cpu().sum()))
        threads = [threading.Thread(target=first_use, args=(i,)) for i in range(8)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert sorted(totals) == [10 * i for i in range(8)], totals
    """)
