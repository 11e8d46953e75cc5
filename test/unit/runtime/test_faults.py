"""What goes wrong beneath the runtime: calls that fail, launches that never end, drivers that do not fit."""

import gc
import hashlib
import re
import subprocess
from pathlib import Path

import faulty_driver
import numpy as np
import pytest
from image_builder import WRITE, copy_program, image, op, r, store_register
from opennpu.runtime.device import Device, NpuError, tensor_view
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import KvSpec

HEADER = Path(__file__).parents[3] / "runtime" / "include" / "opennpu" / "npu.h"
ROWS, ROW = 4, 64
ENDLESS = {
    "in one core's loop": [op("loop", rd=2, hi=1 << 60, step=1), op("s_mov", rd=3), op("end_loop")],
    "from barrier to barrier": [op("loop", rd=2, hi=1 << 60, step=1), op("barrier"), op("end_loop")],
}

# ---- calls that fail


def work(device: Device) -> np.ndarray:
    """Uses every call of the driver once or more; what a copy of 0, 1, 2, … gave."""
    source, target = device.alloc(ROWS * ROW), device.alloc(ROWS * ROW)
    stream, other, start, end = device.stream(), device.stream(), device.event(), device.event()
    stream.copy_in(source, 0, np.arange(ROWS * ROW, dtype=np.uint8))
    stream.record(start)
    stream.launch(device.load(copy_program()), [(source, 0, 256), (target, 0, 256), ROWS])
    stream.record(end)
    other.wait(end)
    out = np.zeros(ROWS * ROW, np.uint8)
    other.copy_out(out, target, 0)
    end.synchronize()
    assert end.query()
    other.synchronize()
    stream.synchronize()
    device.synchronize()
    start.elapsed_ns(end)
    tensor_view(target, "i8", (ROWS * ROW,))
    device.counters()
    device.reset_counters()
    assert device.free_bytes < device.total_bytes
    return out


# The rest of the table cannot fail, or is what the runtime does not call.
CALLS = {
    "memory_alloc": 2,
    "memory_info": 1,
    "memory_host_pointer": 1,
    "stream_create": 2,
    "stream_synchronize": 2,
    "copy_to_device": 1,
    "copy_to_host": 1,
    "program_load": 1,
    "launch": 1,
    "event_create": 2,
    "event_record": 2,
    "stream_wait_event": 1,
    "event_query": 1,
    "event_synchronize": 1,
    "event_elapsed": 1,
    "device_synchronize": 1,
    "device_counters": 1,
    "device_reset_counters": 1,
}
"""Function of the driver → how often `work` calls it."""


@pytest.fixture(scope="module")
def faulty():
    return faulty_driver.device(hbm_bytes=1 << 20)


@pytest.mark.parametrize(
    ("function", "call"), [(f, n) for f, most in CALLS.items() for n in range(1, most + 1)]
)
def test_a_call_that_fails(faulty, function, call):
    """It is an error with the driver's message; nothing stays allocated, and the next attempt succeeds."""
    faulty_driver.give(faulty_driver.order(function, "internal", call))
    with pytest.raises(NpuError, match=f"^injected failure of {function}$") as error:
        work(faulty)
    assert error.value.status == "internal"
    del error
    gc.collect()
    faulty.synchronize()
    assert faulty.free_bytes == faulty.total_bytes
    assert np.array_equal(work(faulty), np.arange(ROWS * ROW, dtype=np.uint8))
    assert faulty.free_bytes == faulty.total_bytes


def test_a_device_that_cannot_be_opened():
    faulty_driver.library()
    faulty_driver.give(faulty_driver.order("device_open", "out_of_memory"))
    with pytest.raises(NpuError, match="injected failure of device_open") as error:
        faulty_driver.device()
    assert error.value.status == "out_of_memory"


def test_a_lost_device_has_a_status_of_its_own(faulty):
    faulty_driver.give(faulty_driver.order("launch", "device_lost"))
    with pytest.raises(NpuError) as error:
        work(faulty)
    assert error.value.status == "device_lost"


def test_pages_survive_a_failed_export(faulty):
    pool = PagePool(faulty, KvSpec(1, 1, 8, 8, "f32"), 16, 4)
    pages = pool.alloc(2)
    for function in ("stream_create", "copy_to_host", "stream_synchronize"):
        faulty_driver.give(faulty_driver.order(function))
        try:
            pool.export_pages(pages)
        except NpuError as error:
            assert f"injected failure of {function}" in str(error)
        faulty_driver.give("")
        assert [pool.references(page) for page in pages] == [1, 1] and pool.free_pages == 2
    assert pool.export_pages(pages).shape[0] == 2


# ---- launches that never end


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_watchdog_ends_a_launch_and_names_its_instruction(engine, body, threads):
    device = Device("npu1-lite", engine=engine, hbm_bytes=1 << 20, launch_limit=0.05, threads=threads)
    stream = device.stream()
    stream.launch(device.load(image(*body, locs=("model.norm at model.py:3",))), [])
    with pytest.raises(NpuError) as error:
        stream.synchronize()
    assert error.value.status == "timeout"
    pattern = r"instruction [012] \(\w+\) of model.norm at model.py:3 on core [01]: "
    assert re.fullmatch(pattern + "the launch ran past the limit of 50 milliseconds", str(error.value))
    # The next one halts ahead of the first look at the clock, however slow the machine is.
    out = device.alloc(8)
    store = [op("s_arg", rd=3, index=0), op("s_mov", rd=2, a=7), *store_register(2, r(3))]
    stream.launch(device.load(image(*store, args=(WRITE,))), [(out, 0, 8)])
    stream.synchronize()
    assert tensor_view(out, "i64", (1,)) == 7


def test_a_launch_within_the_limit_is_left_alone():
    device = Device("npu1-lite", hbm_bytes=1 << 20, launch_limit=60)
    assert np.array_equal(work(device), np.arange(ROWS * ROW, dtype=np.uint8))


@pytest.mark.parametrize("limit", [-1, 0, 1e9, float("inf"), float("nan")])
def test_a_limit_that_is_no_time(limit):
    with pytest.raises(ValueError, match="is no time in seconds"):
        Device("npu1-lite", hbm_bytes=1 << 20, launch_limit=limit)


# ---- failures travel with events


@pytest.fixture
def failed(device):
    """A stream whose launch has failed, an event behind it, and one of before."""
    stream, before, behind = device.stream(), device.event(), device.event()
    stream.record(before)
    buffer = device.alloc(ROW)
    stream.launch(device.load(copy_program()), [(buffer, 0, ROW), (buffer, 0, ROW), ROWS])
    stream.record(behind)
    return stream, before, behind


def trapped(call):
    with pytest.raises(NpuError, match="HBM address") as error:
        call()
    assert error.value.status == "trap"


def test_an_event_tells_what_failed_before_it(device, failed):
    stream, before, behind = failed
    trapped(behind.synchronize)
    trapped(behind.synchronize)
    before.synchronize()
    trapped(stream.synchronize)
    stream.record(behind)
    behind.synchronize()


def test_who_waits_for_a_failed_stream_fails_too(device, failed):
    """Else it would work on what was not computed."""
    stream, before, behind = failed
    out, buffer, good = np.zeros(ROW, np.uint8), device.alloc(ROW), device.stream()
    buffer.numpy()[:] = 7
    good.wait(before)
    good.copy_out(out, buffer, 0)
    good.synchronize()
    assert np.all(out == 7)
    other = device.stream()
    other.wait(behind)
    out[:] = 0
    other.copy_out(out, buffer, 0)
    trapped(other.synchronize)
    assert np.all(out == 0)
    trapped(stream.synchronize)
    other.copy_out(out, buffer, 0)
    other.synchronize()
    assert np.all(out == 7)


# ---- drivers that do not fit


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("{.version = NPU_DRIVER_VERSION - 1}", "does not implement version"),
        ("{.version = NPU_DRIVER_VERSION}", "lacks a function of the driver interface"),
    ],
)
def test_a_driver_of_another_version_or_without_a_function(tmp_path, table, message):
    source, path = tmp_path / "driver.cpp", tmp_path / "driver.so"
    source.write_text(f"""
#include "opennpu/npu.h"
static const npu_driver table = {table};
extern "C" const npu_driver* npu_get_driver(uint32_t) {{ return &table; }}
""")
    include = f"-I{HEADER.parents[1]}"
    subprocess.run(["c++", "-std=c++20", "-shared", "-fPIC", include, source, "-o", path], check=True)
    with pytest.raises(NpuError, match=message) as error:
        Device("npu1-lite", driver=path)
    assert error.value.status == "unsupported"


def test_a_changed_interface_has_a_new_version():
    """What stands in npu.h, comments aside, belongs to its version: a change needs the next number here."""
    text = re.sub(r"//[^\n]*", "", HEADER.read_text())
    version = int(re.search(r"NPU_DRIVER_VERSION (\d+)", text)[1])
    digest = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]
    assert (version, digest) == (3, "fc00db0c24e06ace")
