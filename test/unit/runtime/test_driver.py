"""The driver through its Python objects: memory, launches, streams, events, counters, errors."""

import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from image_builder import CHIP, READ, SCALAR, WRITE, copy_program, image, op, r
from opennpu.dialects.isa.encoding import Affine, TileOperand
from opennpu.runtime import _core
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, NpuError, tensor_view

ROWS, ROW = 4, 64


@pytest.fixture
def job(device):
    """A loaded copy program, its source and its target."""
    source, target = device.alloc(ROWS * ROW), device.alloc(ROWS * ROW)
    source.numpy()[:] = np.random.default_rng(0).integers(0, 256, ROWS * ROW)
    target.numpy()[:] = 0
    return device.load(copy_program()), source, target


def arguments(source, target, rows=ROWS):
    return [(source, 0, source.bytes), (target, 0, target.bytes), rows]


def fails(call, message, status):
    with pytest.raises(NpuError, match=message) as error:
        call()
    assert error.value.status == status


# ---- opening


def test_unknown_engine():
    fails(lambda: Device("npu1-lite", engine="quantum"), '"native" and "reference"', "unsupported")


def test_a_library_can_be_named_in_place_of_the_virtual_chip():
    library = Path(_core.__file__).parent / "libnpu_virtual.so"
    device = Device("npu1-lite", driver=library, hbm_bytes=1 << 20)
    assert device.core.driver == "virtual"
    device.load(copy_program())


def test_a_library_that_is_no_driver(tmp_path):
    path = tmp_path / "driver.so"
    path.write_text("not a library")
    fails(lambda: Device("npu1-lite", driver=path), "cannot load the driver", "unsupported")
    fails(lambda: Device("npu1-lite", driver="libm.so.6"), "does not export npu_get_driver", "unsupported")


def test_a_host_without_room_for_the_threads():
    """In a process of its own, whose limit leaves room for the stacks of a few threads."""
    script = """
import resource
from opennpu.runtime import _core
from opennpu.runtime.chip import Chip
data = Chip.load("npu1-lite").to_dict()
data["memory"] |= {"spm_kib": 64, "acc_kib": 64}
chip = Chip.from_dict({**data, "cores": 1024})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
try:
    _core.Device(chip, threads=1024, hbm_bytes=1 << 20)
except _core.NpuError as error:
    print(error.status, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out_of_memory the host cannot start 1024 threads: ")


# ---- memory


def test_memory_is_aligned_disjoint_and_returned(device):
    free = device.free_bytes
    buffers = [device.alloc(n) for n in (1, 64, 65, 1000)]
    assert all(b.address % CHIP.align_bytes == 0 and b.address > 0 for b in buffers)
    spans = sorted((b.address, b.address + b.bytes) for b in buffers)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert device.free_bytes < free
    buffers.pop(1)
    del buffers
    assert device.free_bytes == free == device.total_bytes


def test_out_of_memory_tells_how_much_there_is(device):
    kept = device.alloc(40 << 20)
    fails(
        lambda: device.alloc(32 << 20),
        re.escape("out of HBM: 32.0 MiB asked for, 24.0 MiB of 64.0 MiB free"),
        "out_of_memory",
    )
    assert kept.bytes
    fails(lambda: device.alloc(0), "0 bytes", "invalid_argument")
    fails(lambda: device.alloc((1 << 64) - 1), "out of HBM", "out_of_memory")


def test_tensor_view_shares_memory(device):
    buffer = device.alloc(256)
    view = tensor_view(buffer, "f32", (4, 8), offset=128)
    view.fill_(1.5)
    assert np.all(buffer.numpy()[128:].view(np.float32) == 1.5)
    del buffer
    assert view.sum() == 48  # the view keeps the memory
    with pytest.raises(ValueError, match="does not fit"):
        tensor_view(device.alloc(64), "bf16", (33,))


def test_hidden_memory_is_reached_by_copies_only():
    device = Device("npu1-lite", hbm_bytes=1 << 20, hide_memory=True)
    buffer, stream = device.alloc(200), device.stream()
    fails(buffer.numpy, "the host does not see this chip's memory", "unsupported")
    data, out = np.arange(200, dtype=np.uint8), np.zeros(200, np.uint8)
    stream.copy_in(buffer, 0, data)
    stream.copy_out(out, buffer, 0)
    stream.synchronize()
    assert np.array_equal(out, data)


def test_copies(device):
    buffer = device.alloc(300)
    data = np.arange(200, dtype=np.uint8)
    out = np.zeros(200, np.uint8)
    stream = device.stream()
    stream.copy_in(buffer, 100, data)
    stream.copy_out(out, buffer, 100)
    stream.synchronize()
    assert np.array_equal(out, data)
    for offset in (101, (1 << 64) - 1):
        fails(lambda at=offset: stream.copy_in(buffer, at, data), "reach past the end", "invalid_argument")
        fails(lambda at=offset: stream.copy_out(out, buffer, at), "reach past the end", "invalid_argument")


def test_a_copy_stays_within_its_buffer(device):
    """Although the bytes that it names lie within an allocation: that of another buffer."""
    a, b = sorted((device.alloc(64), device.alloc(64)), key=lambda buffer: buffer.address)
    stream, data = device.stream(), np.zeros(8, np.uint8)
    fails(lambda: stream.copy_in(a, b.address - a.address, data), "reach past the end", "invalid_argument")


def test_buffers_of_another_device(device, job):
    program, source, _ = job
    other = Device("npu1-lite", engine="reference", hbm_bytes=1 << 20).alloc(ROWS * ROW)
    stream, data = device.stream(), np.zeros(8, np.uint8)
    for call in (
        lambda: stream.launch(program, arguments(source, other)),
        lambda: stream.copy_in(other, 0, data),
        lambda: stream.copy_out(data, other, 0),
    ):
        fails(call, "belongs to another device", "invalid_argument")


# ---- launches


def test_launch_copies(device, job):
    program, source, target = job
    stream = device.stream()
    stream.launch(program, arguments(source, target))
    stream.synchronize()
    assert np.array_equal(target.numpy(), source.numpy())


def test_arguments_are_checked_at_once(device, job):
    program, source, target = job
    stream = device.stream()
    good = arguments(source, target)
    for bad, message in [
        (good[:2], "takes 3 arguments, 2 were given"),
        ([good[0], 5, good[2]], "argument 1 must be a buffer"),
        ([*good[:2], good[0]], "argument 2 must be a scalar"),
        ([(source, 0, 1 << 30), *good[1:]], "argument 0: .* reach past the end of a buffer of 256 bytes"),
        ([(source, 1 << 40, 8), *good[1:]], "argument 0: .* reach past the end"),
        ([(source, source.bytes - 7, 8), *good[1:]], "argument 0: .* reach past the end"),
        ([good[0], (target, (1 << 64) - 8, 8), good[2]], "argument 1: .* reach past the end"),
    ]:
        fails(lambda bad=bad: stream.launch(program, bad), message, "invalid_argument")
    stream.synchronize()
    assert device.counters()["launches"] == 0


def test_a_program_stays_within_its_arguments(device, job):
    program, source, target = job
    stream = device.stream()
    stream.launch(program, [(source, 0, source.bytes), (target, 0, target.bytes - 1), ROWS])
    fails(stream.synchronize, r"\(dma_store\) of copy at test.py:1 on core 0", "trap")


def test_a_read_argument_cannot_be_written(device, job):
    _, source, _target = job
    data = image(
        op("s_arg", rd=2, index=0), op("dma_store", dst=r(2), src=0, n0=1, n1=1, n2=1, bytes=8), args=(READ,)
    )
    stream = device.stream()
    stream.launch(device.load(data), [(source, 0, 64)])
    fails(stream.synchronize, "only reads", "trap")


def test_a_failed_stream_skips_work_and_recovers(device, job):
    program, source, target = job
    stream = device.stream()
    stream.launch(program, arguments(source, target, rows=ROWS + 1))
    target_after = device.alloc(ROWS * ROW)
    target_after.numpy()[:] = 7
    stream.launch(program, arguments(source, target_after))
    fails(stream.synchronize, "HBM address", "trap")
    assert np.all(target_after.numpy() == 7)
    stream.synchronize()
    stream.launch(program, arguments(source, target_after))
    stream.synchronize()
    assert np.array_equal(target_after.numpy(), source.numpy())


def test_device_synchronize_reports_a_stream_that_failed(device, job):
    program, source, target = job
    good, bad = device.stream(), device.stream()
    good.launch(program, arguments(source, target))
    bad.launch(program, arguments(source, target, rows=99))
    fails(device.synchronize, "HBM address", "trap")
    device.synchronize()


def test_device_synchronize_leaves_the_failures_of_other_streams(device, job):
    program, source, target = job
    streams = [device.stream(), device.stream()]
    for stream in streams:
        stream.launch(program, arguments(source, target, rows=99))
    fails(device.synchronize, "HBM address", "trap")
    raised = 0
    for stream in streams:
        try:
            stream.synchronize()
        except NpuError:
            raised += 1
    assert raised == 1
    device.synchronize()


def test_streams_come_and_go_while_the_device_synchronises(device, job):
    program, source, target = job
    working = True

    def synchronise():
        while working:
            device.synchronize()

    thread = threading.Thread(target=synchronise)
    thread.start()
    for _ in range(100):
        stream = device.stream()
        stream.launch(program, arguments(source, target))
        del stream
    working = False
    thread.join()
    assert np.array_equal(target.numpy(), source.numpy())


def test_objects_in_use_live_until_synchronisation(device):
    stream, first_ran = device.stream(), device.event()
    source, target = device.alloc(ROWS * ROW), device.alloc(ROWS * ROW)
    source.numpy()[:] = 7
    wide = TileOperand("spm", "f32", Affine(0), 0, 2048, 4)
    exp = op("v_unary", op="exp", dst=wide, a=wide, d0=1, d1=200, d2=512)
    rounds = 1000 if device.engine == "native" else 20  # some 0.1 s
    long = image(op("loop", rd=5, lo=0, hi=rounds, step=1), exp, op("end_loop"))
    stream.launch(device.load(long), [])
    stream.record(first_ran)
    stream.launch(device.load(copy_program()), arguments(source, target))
    taken = source.address
    del source
    another = device.alloc(ROWS * ROW)  # of the same size: where the source was, had it been freed
    another.numpy()[:] = 9
    assert not first_ran.query(), "the first launch is too short for this test"
    assert another.address != taken
    stream.synchronize()
    assert np.all(target.numpy() == 7)


def test_a_dropped_stream_finishes_its_work_first(device):
    target = device.alloc(ROWS * ROW)
    for i in range(20):
        source = device.alloc(ROWS * ROW)
        source.numpy()[:] = i
        stream = device.stream()
        for _ in range(5):
            stream.launch(device.load(copy_program()), arguments(source, target))
        del source, stream
        assert np.all(target.numpy() == i)


def test_a_long_queue_keeps_its_order(device):
    """More work than the stream has places for, behind a launch that takes a while."""
    buffers = [device.alloc(ROWS * ROW) for _ in range(200)]
    buffers[0].numpy()[:] = np.arange(ROWS * ROW) % 251
    stream, program = device.stream(), device.load(copy_program())
    wide = TileOperand("spm", "f32", Affine(0), 0, 2048, 4)
    exp = op("v_unary", op="exp", dst=wide, a=wide, d0=1, d1=200, d2=512)
    stream.launch(device.load(image(*[exp] * 10)), [])
    for source, target in itertools.pairwise(buffers):
        stream.launch(program, arguments(source, target))
    stream.synchronize()
    assert np.array_equal(buffers[-1].numpy(), np.arange(ROWS * ROW) % 251)


def test_programs_and_streams_of_different_devices(device, job):
    other = Device("npu1-lite", engine="reference", hbm_bytes=1 << 20)
    fails(lambda: other.stream().launch(job[0], []), "different devices", "invalid_argument")


def test_counters(device, job):
    program, source, target = job
    stream = device.stream()
    for _ in range(3):
        stream.launch(program, arguments(source, target))
    stream.synchronize()
    counters = device.counters()
    assert counters["launches"] == 3
    assert counters["bytes_loaded"] == counters["bytes_stored"] == 3 * ROWS * ROW
    # core 0: if, 3 s_arg, loop, 4 rows of 7 and their end, end_if, barrier, halt; core 1: if, barrier, halt
    assert counters["instructions"] == 3 * (1 + 3 + 1 + ROWS * 7 + 3 + 3)
    assert counters["busy_ns"] > 0
    device.reset_counters()
    assert set(device.counters().values()) == {0}


def test_macs_are_counted(device):
    data = image(
        op("mx_load", k=4, n=16, layout="kn", stride=64), op("mx_mul", rows=3, src_stride=64, dst_stride=64)
    )
    stream = device.stream()
    stream.launch(device.load(data), [])
    stream.synchronize()
    assert device.counters()["macs"] == CHIP.cores * 3 * 4 * 16


# ---- streams and events


def test_events_order_streams(device, job):
    """source → middle on one stream, middle → target on the other, many times."""
    program, source, target = job
    middle = device.alloc(ROWS * ROW)
    first, second = device.stream(), device.stream()
    for i in range(20):
        source.numpy()[:] = i
        done, taken = device.event(), device.event()
        first.launch(program, arguments(source, middle))
        first.record(done)
        second.wait(done)
        second.launch(program, arguments(middle, target))
        second.record(taken)
        taken.synchronize()
        assert np.all(target.numpy() == i)
    device.synchronize()


def test_event_state_and_time(device, job):
    program, source, target = job
    stream = device.stream()
    start, end, never = device.event(), device.event(), device.event()
    assert start.query()  # not recorded: nothing to wait for
    never.synchronize()
    stream.wait(never)
    stream.record(start)
    for _ in range(5):
        stream.launch(program, arguments(source, target))
    stream.record(end)
    end.synchronize()
    assert start.query() and end.query()
    assert start.elapsed_ns(end) >= device.counters()["busy_ns"] > 0
    fails(lambda: start.elapsed_ns(never), "has no time", "invalid_argument")


def test_an_event_happens_even_after_a_failure(device, job):
    program, source, target = job
    stream, event = device.stream(), device.event()
    stream.launch(program, arguments(source, target, rows=99))
    stream.record(event)
    fails(event.synchronize, "HBM", "trap")
    assert event.query()
    fails(stream.synchronize, "HBM", "trap")


def test_streams_from_many_threads(device, job):
    program, source, _ = job
    targets = [device.alloc(ROWS * ROW) for _ in range(4)]

    def work(target):
        stream = device.stream()
        for _ in range(10):
            stream.launch(program, arguments(source, target))
            stream.synchronize()

    threads = [threading.Thread(target=work, args=(t,)) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(t.numpy(), source.numpy()) for t in targets)
    assert device.counters()["launches"] == 40


def test_race_checker_finds_a_missing_flag():
    # One thread: the race is to be in the program, not in memory.
    device = Device("npu1-lite", engine="reference", race_check=True, hbm_bytes=1 << 20, threads=1)
    walk = {"n0": 1, "n1": 1, "n2": 1, "bytes": 64}
    body = [
        op("s_arg", rd=2, index=0),
        op("dma_load", src=r(2), **walk),
        op("dma_store", dst=r(2), **walk),
    ]
    stream, buffer = device.stream(), device.alloc(64)
    program = device.load(image(*body, args=(WRITE,), locs=("unsynchronised",)))
    stream.launch(program, [(buffer, 0, 64)])
    fails(stream.synchronize, "unsynchronised", "race")


def test_chip_description_is_checked():
    big = Chip.from_dict({**CHIP.to_dict(), "cores": 5000})
    fails(lambda: Device(big), "cores must be from 1 to 1024", "invalid_argument")


def test_scalars_are_64_bits(device):
    data = image(op("s_arg", rd=2, index=0), args=(SCALAR,))
    stream = device.stream()
    for value in (-(1 << 63), (1 << 63) - 1):
        stream.launch(device.load(data), [value])
    stream.synchronize()
