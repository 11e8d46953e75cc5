"""What holds for every program: determinism, times that add up, no time below the roofline bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builder import CHIP, copy_program, op, r
from micro import chip, fill, load, run, set_flag, store, wait_flag
from opennpu.dialects.isa.encoding import Affine
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.timing import ENGINES, time_image

QUEUES = st.sampled_from(ENGINES)


def by_core(number: int) -> Affine:
    """`number` on core 0, more on the others."""
    return Affine(number, ((0, number),))


@st.composite
def programs(draw):
    """Stretches of random work between barriers, each flag between two queues."""
    body = []
    for _ in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(1, 8))):
            size = draw(st.integers(1, 2000))
            body += draw(
                st.sampled_from(
                    [
                        [load(by_core(size))],
                        [load(size % 100 + 1, n2=by_core(size % 13 + 1), ss2=128)],
                        [store(size)],
                        [op("dma_gather", group=1, count=size % 9, rows=2, row_bytes=32, row_stride=64)],
                        [op("mx_load", k=size % 128 + 1, n=size % 64 + 1, dtype="bf16")],
                        [op("mx_mul", rows=by_core(size % 200))],
                        [fill(by_core(size))],
                    ]
                )
            )
            if draw(st.booleans()):
                first, second = draw(QUEUES), draw(QUEUES)
                flag = ENGINES.index(first) * len(ENGINES) + ENGINES.index(second)
                body += [set_flag(first, flag), wait_flag(second, flag)]
        body.append(op("barrier"))
    return body


@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(1, 5), st.sampled_from([1, 2, 16]), st.sampled_from([16, 64, 1000]))
def test_invariants(body, cores, depth, hbm_gbps):
    on = chip(cores=cores, queue_depth=depth, hbm_gbps=hbm_gbps)
    report = run(*body, on=on)
    assert report == run(*body, on=on)
    assert 0 <= report.roofline_ratio <= 1
    assert sum(source["cycles"] for source in report.ops) == report.cycles
    assert sum(source["hbm_bytes"] for source in report.ops) == report.hbm_bytes
    for core in report.cores:
        for engine in ENGINES:
            times = core[engine]
            assert times["busy"] + sum(times["stalls"].values()) == report.cycles
            assert 0 <= times["hbm_contention"] <= times["busy"]
        assert sum(core["sequencer"].values()) == report.cycles
    assert sum(report.utilisation.values()) <= len(ENGINES)


def test_work_is_what_the_engines_count():
    """The bytes, products and instructions of a program that really runs."""
    timed = Chip.load(CHIP.name)
    device = Device(timed, hbm_bytes=1 << 20)
    buffers = [device.alloc(4096) for _ in range(2)]
    args = [*((buffer, 0, 4096) for buffer in buffers), 64]
    image, stream = copy_program(), device.stream()
    stream.launch(device.load(image), args)
    stream.synchronize()
    buffers[1].numpy()[:] = 7
    report, counters = time_image(timed, image, args), device.counters()
    assert report.bytes_loaded == counters["bytes_loaded"] == 4096
    assert report.bytes_stored == counters["bytes_stored"] == 4096
    assert report.instructions == counters["instructions"]
    assert (buffers[1].numpy() == 7).all(), "the timing model moves no data"


def test_the_times_of_a_loop_grow_with_its_length():
    """Steady loops: every further iteration costs the same."""

    def cycles(count: int) -> int:
        body = [load(4096), set_flag("load", 0), wait_flag("vector", 0), fill(1600)]
        return run(op("loop", rd=2, lo=0, hi=count, step=1), *body, op("end_loop")).cycles

    steps = np.diff([cycles(count) for count in range(20, 60)])
    assert (steps == 110).all()  # the vector unit: 10 + 1600 / 16


@pytest.mark.parametrize("bad", ["loads too much", "flag", "loop"])
def test_traps_are_those_of_a_launch(bad):
    body, message = {
        "loads too much": ([load(1 << 40)], "touches more than"),
        "flag": ([wait_flag("load", 0)], "deadlock"),
        "loop": ([op("loop", rd=2, lo=0, hi=1, step=r(3)), op("end_loop")], "must be positive"),
    }[bad]
    with pytest.raises(NpuError, match=message):
        run(*body)
