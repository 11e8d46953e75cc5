"""What holds for every program: determinism, times that add up, no time below the roofline bound."""

import itertools

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
PLACES = [0, 100_000, 131_000, 262_144, 300_000, 400_000]
"""Some in one bank of four, some in two."""

CHIPS = st.builds(
    chip,
    cores=st.integers(1, 5),
    queue_depth=st.sampled_from([1, 2, 16]),
    hbm_gbps=st.sampled_from([16, 64, 1000]),
    spm_banks=st.sampled_from([0, 1, 4]),
    spm_bank_bytes_per_cycle=st.sampled_from([16, 64, 256]),
)


def packed_tile(k: int, n: int, **fields):
    return op("mx_load", k=k, n=n, dtype="bf16", layout="packed", stride=k * 32, **fields)


def by_core(number: int) -> Affine:
    """`number` on core 0, more on the others."""
    return Affine(number, ((0, number),))


@st.composite
def programs(draw):
    """Stretches of random work all over the scratchpad between barriers, each flag between two queues."""
    body = []
    for _ in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(1, 8))):
            size, at = draw(st.integers(1, 2000)), draw(st.sampled_from(PLACES))
            body += draw(
                st.sampled_from(
                    [
                        [load(by_core(size), dst=at)],
                        [load(size % 100 + 1, dst=at, n2=by_core(size % 13 + 1), ss2=128, ds2=128)],
                        [load(size, dst=by_core(at // 8), share=r(1), share_stride=1)],
                        [load(size % 9, dst=at, share=r(1), share_stride=1)],
                        [store(size, src=at)],
                        [
                            op(
                                "dma_gather",
                                dst=at,
                                group=1,
                                count=size % 9,
                                rows=2,
                                row_bytes=32,
                                row_stride=64,
                            )
                        ],
                        [packed_tile(size % 128 + 1, size % 64 + 1, src=at)],
                        [op("mx_mul", src=at, src_stride=256, rows=by_core(size % 200))],
                        [fill(by_core(size), at)],
                    ]
                )
            )
            if draw(st.booleans()):
                first, second = draw(QUEUES), draw(QUEUES)
                flag = ENGINES.index(first) * len(ENGINES) + ENGINES.index(second)
                body += [set_flag(first, flag), wait_flag(second, flag)]
        body.append(op("barrier"))
    return body


@settings(max_examples=150)
@given(programs(), CHIPS)
def test_invariants(body, on):
    report = run(*body, on=on)
    assert report == run(*body, on=on)
    assert 0 <= report.roofline_ratio <= 1
    assert sum(source["cycles"] for source in report.ops) == report.cycles
    assert sum(source["hbm_bytes"] for source in report.ops) == report.hbm_bytes
    for core in report.cores:
        for engine in ENGINES:
            times = core[engine]
            assert times["busy"] + sum(times["stalls"].values()) == report.cycles
            assert 0 <= times["hbm_contention"] + times["bank_conflicts"] <= times["busy"]
        assert sum(core["sequencer"].values()) == report.cycles
    for source, engine in itertools.product(report.ops, ENGINES):
        times = source[engine]
        assert times["busy"] + sum(times["stalls"].values()) == source["cycles"] * on.cores
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
