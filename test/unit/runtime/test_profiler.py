"""The profiler counts what a device counts, op by op, and its times add up to the launches'."""

from dataclasses import replace

import pytest
import torch
from image_builder import CHIP, WRITE, copy_program, image, op, r
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.runtime._core import ProfiledProgram
from opennpu.runtime.device import Device, NpuError
from opennpu.tools.profile.host import HostProfile, Limits, profile_lines

ROWS, ROW_BYTES = 1000, 4096


@pytest.mark.parametrize("threads", [1, 2])
def test_counts_and_times(threads):
    device = Device(CHIP, threads=threads)
    x, y = device.alloc(ROWS * ROW_BYTES), device.alloc(ROWS * ROW_BYTES)
    x.numpy()[:] = torch.randint(0, 255, (ROWS * ROW_BYTES,), dtype=torch.uint8).numpy()
    args = [(x, 0, x.bytes), (y, 0, y.bytes), ROWS]
    program = copy_program(ROWS, ROW_BYTES)
    stream = device.stream()
    stream.launch(device.load(program), args)
    stream.synchronize()
    y.numpy()[:] = 0

    profiled = ProfiledProgram(CHIP, program, threads)
    for _ in range(3):
        profiled.run(args)
    taken = profiled.take()
    assert (x.numpy() == y.numpy()).all()
    counters = device.counters()
    assert taken["launches"] == 3
    total = {key: sum(op[key] for op in taken["ops"]) for key in ("hbm_bytes", "macs", "instructions")}
    assert total["hbm_bytes"] == 3 * (counters["bytes_loaded"] + counters["bytes_stored"])
    assert total["macs"] == 0
    # What a core does ahead of the first instruction that is seen, and its halt, are no op's.
    assert 0 < total["instructions"] <= 3 * counters["instructions"]
    busy = sum(sum(op["ns"].values()) for op in taken["ops"])
    assert 0 < busy <= taken["ns"] * threads
    assert profiled.take()["launches"] == 0


def fill(location: int, elements: int) -> Instruction:
    tile = TileOperand("spm", "f32", Affine(0), s2=4)
    return op("v_fill", location, dst=tile, d0=1, d1=1, d2=elements)


def repeated(times: int, body: Instruction) -> list[Instruction]:
    return [op("loop", body.loc, rd=5, lo=0, hi=times, step=1), body, op("end_loop", body.loc)]


def test_time_goes_to_the_op_and_the_unit():
    """A thousand fills of 64 KiB beside one of an element."""
    program = image(*repeated(1000, fill(0, 16384)), fill(1, 1), locs=("much", "little"))
    profiled = ProfiledProgram(CHIP, program, 1)
    profiled.run([])
    much, little = profiled.take()["ops"]
    assert (much["source"], little["source"]) == ("much", "little")
    assert much["ns"]["vector"] > little["ns"]["vector"] > 0
    assert much["instructions"] > 1000 > little["instructions"]
    assert not sum(much["ns"][unit] for unit in ("load", "store", "matrix"))


def test_waiting_at_a_barrier_is_no_ops_time():
    """Core 1 works, the others wait for it."""
    work = [op("if", cond=r(0)), *repeated(1000, fill(0, 16384)), op("end_if")]
    profiled = ProfiledProgram(CHIP, image(*work, op("barrier", 1), locs=("work", "barrier")), 2)
    profiled.run([])
    work, barrier = profiled.take()["ops"]
    assert sum(barrier["ns"].values()) == 0 < sum(work["ns"].values())


def test_what_cannot_run():
    profiled = ProfiledProgram(CHIP, image(op("s_arg", rd=5, index=0), args=(WRITE,)), 1)
    with pytest.raises(NpuError, match="takes 1 arguments, 0 were given"):
        profiled.run([])
    trap = ProfiledProgram(CHIP, image(fill(0, 1 << 30), locs=("too much",)), 1)
    with pytest.raises(NpuError, match="of too much"):
        trap.run([])
    assert trap.take()["launches"] == 0
    with pytest.raises(NpuError, match="compiled for"):
        ProfiledProgram(replace(CHIP, cores=CHIP.cores + 1), image(), 1)


def test_the_table():
    """Rates are per wall time: two threads that load 10 GB in 1 s each do so in a second at 20 GB/s."""
    ns = dict.fromkeys(("load", "store", "matrix", "vector", "sequencer"), 0)
    slow = {"source": "slow", "ns": {**ns, "load": 2 * 10**9}, "hbm_bytes": 20 * 10**9, "macs": 0}
    quick = {"source": "quick", "ns": {**ns, "matrix": 10**9}, "hbm_bytes": 0, "macs": 25 * 10**9}
    profile = HostProfile(launches=10, seconds=2.0, threads=2, ops=[quick, slow])
    title, _, first, second, rest = profile_lines(profile, Limits(40e9, 200e9), "decode")
    assert title == "decode: 10 launches of 200.000 ms, 2 threads"
    times, units, name = first.split()[:5], first.split()[5:10], first.split()[10:]
    assert times == ["100.000", "50.0%", "20.0", "0.0", "0.50"]
    assert (units, name) == (["100%", "0%", "0%", "0%", "0%"], ["slow"])
    assert second.split()[:5] == ["50.000", "25.0%", "0.0", "100.0", "0.50"]
    assert rest.split() == ["50.000", "25.0%", "threads", "without", "work"]
