"""Small programs whose cycles are counted by hand. An instruction is issued in the cycle of its place in
the program; 4096 bytes are 4096 + 64 of overhead at 64 a cycle: 65 cycles."""

import numpy as np
import pytest
from image_builder import READ, SCALAR, Affine, op, r
from micro import chip, fill, load, run, set_flag, store, wait_flag
from opennpu.dialects.isa.encoding import TileOperand
from opennpu.runtime.device import Device


def test_nothing():
    assert run().cycles == 1  # halt
    assert run(op("s_mov", rd=2, a=1), op("s_mov", rd=2, a=1)).cycles == 3


def test_one_transfer():
    report = run(load(4096))
    assert report.cycles == 1 + 65 + 100
    assert report.bytes_loaded == 4096
    assert report.cores[0]["load"]["busy"] == 65
    assert report.cores[0]["load"]["hbm_contention"] == 0
    assert report.cores[0]["load"]["stalls"]["issue"] == 1


def test_an_empty_transfer_costs_nothing():
    assert run(load(0)).cycles == 2
    assert run(load(64, n1=-1)).cycles == 2


@pytest.mark.parametrize(
    ("fields", "cycles"),
    [
        ({"n2": 10, "ss2": 40, "bytes": 40}, 8),  # one run of 400: 448 + 64 bytes
        ({"n2": 10, "ss2": 80, "bytes": 40}, 20),  # ten runs of 64 + 64
        ({"n1": 10, "ss1": 80, "n2": 2, "ss2": 20, "bytes": 20}, 20),  # the inner steps make one run
        ({"n0": 2, "ss0": 400, "n2": 10, "ss2": 40, "bytes": 40}, 14),  # one of 800: 832 + 64
        ({"n2": 10, "ss2": 0, "bytes": 64}, 20),  # the same bytes again
    ],
)
def test_short_runs(fields, cycles):
    assert run(load(0, **fields)).cycles == 1 + cycles + 100


def test_descriptors_bound_a_transfer_of_short_runs():
    runs = {"n2": 10, "ss2": 80, "bytes": 40}
    assert run(load(0, **runs), on=chip(dma_run_cycles=7)).cycles == 1 + 70 + 100


def test_a_store_runs_along_its_destination():
    report = run(store(40, n2=10, ds2=40, ss2=64))
    assert report.cycles == 1 + 8 + 100
    assert report.bytes_stored == 400


@pytest.mark.parametrize("name", ["dma_gather", "dma_scatter"])
def test_indirect(name):
    fields = {"group": 1, "limit": 100, "count": 6}
    # 6 runs of 64 + 64 bytes take 12 cycles, their descriptors 6·8 + 6·1; the indices are fetched first.
    assert run(op(name, rows=1, row_bytes=64, **fields)).cycles == 1 + 54 + 200
    # Rows that follow on each other are one run an index: 6·(1024 + 64) bytes.
    assert run(op(name, rows=16, row_bytes=64, row_stride=64, **fields)).cycles == 1 + 102 + 200
    assert run(op(name, rows=16, row_bytes=64, row_stride=640, **fields)).cycles == 1 + 192 + 200
    assert run(op(name, rows=1, row_bytes=64, group=1)).cycles == 2


def mx_load(k=32, n=16, dtype="bf16"):
    return op("mx_load", dtype=dtype, k=k, n=n)


def test_one_product():
    report = run(mx_load(), op("mx_mul", rows=20))
    assert report.cycles == 1 + 32 + 20 + 30
    assert report.macs == 20 * 32 * 16
    assert report.cores[0]["matrix"]["busy"] == 52


def test_products_in_f32_take_longer():
    assert run(mx_load(dtype="f32"), op("mx_mul", rows=20)).cycles == 1 + 32 + 4 * 20 + 30


def test_the_next_tile_loads_behind_the_product():
    body = [mx_load(), op("mx_mul", rows=40)] * 2
    assert run(*body).cycles == 1 + 32 + 40 + 40 + 30
    body = [mx_load(), op("mx_mul", rows=10)] * 2  # the load takes longer: 33 + 32 instead of 33 + 10
    report = run(*body)
    assert report.cycles == 1 + 32 + 32 + 10 + 30
    assert report.cores[0]["matrix"]["busy"] == 32 + 32 + 10


def test_an_empty_tile_multiplies_in_no_time():
    assert run(op("mx_mul", rows=20)).cycles == 2


@pytest.mark.parametrize(
    ("name", "fields", "cycles"),
    [
        ("v_fill", {}, 10 + 10),
        ("v_iota", {}, 10 + 10),
        ("v_unary", {"op": "copy"}, 10 + 10),
        ("v_unary", {"op": "exp"}, 10 + 40),
        ("v_binary", {"op": "add"}, 10 + 10),
        ("v_binary", {"op": "div"}, 10 + 40),
        ("v_select", {}, 10 + 10),
        ("v_reduce", {"op": "sum"}, 10 + 10),
        ("v_transpose", {}, 10 + 10),
        ("v_gather", {}, 10 + 40),
    ],
)
def test_vector_instructions(name, fields, cycles):
    """4 × 1 × 40 = 160 elements through 16 lanes, or the 4 of the special functions."""
    assert run(op(name, d0=4, d1=1, d2=40, **fields)).cycles == 1 + cycles
    assert run(op(name, d0=4, d1=1, d2=41, **fields)).cycles == 1 + 10 + -(-164 // (160 // (cycles - 10)))
    assert run(op(name, d0=4, d1=0, d2=40, **fields)).cycles == 2


def test_softmax_step_takes_two_passes_and_the_exponential():
    assert run(op("v_softmax_step", rows=4, n=40, group=1)).cycles == 1 + 10 + 2 * 10 + 40


def test_a_chain_across_queues():
    report = run(
        load(4096),
        set_flag("load", 0),
        wait_flag("vector", 0),
        fill(160),
        set_flag("vector", 1),
        wait_flag("store", 1),
        store(640),
    )
    loaded = 1 + 65 + 100
    filled = loaded + 5 + 20
    assert report.cycles == filled + 5 + 11 + 100
    vector = report.cores[0]["vector"]
    assert vector["busy"] == 20
    assert vector["stalls"]["issue"] == 3
    assert vector["stalls"]["load"] == loaded + 5 - 3
    assert vector["stalls"]["barrier"] == report.cycles - filled
    assert report.cores[0]["store"]["stalls"]["vector"] == filled + 5 - 6


def double_buffered(iterations: int, latency: int) -> int:
    """Loads of 65 cycles into two halves in turn, each consumed by 20 cycles of the vector unit."""
    full, free = r(3), r(3, plus=2)
    return run(
        set_flag("vector", 2),
        set_flag("vector", 3),
        op("loop", rd=2, lo=0, hi=iterations, step=1),
        op("s_alu", op="mod", rd=3, a=r(2), b=2),
        wait_flag("load", free),
        load(4096),
        set_flag("load", full),
        wait_flag("vector", full),
        fill(160),
        set_flag("vector", free),
        op("end_loop"),
        wait_flag("load", 2),
        wait_flag("load", 3),
        on=chip(dma_latency_cycles=latency),
    ).cycles


def test_double_buffered_loop_that_memory_bounds():
    # The first load is issued in cycle 6, when the flag that was set in cycle 1 is seen too. Loads follow
    # on each other without a gap; after the last come flag, vector unit and flag.
    assert double_buffered(iterations=6, latency=0) == 6 + 6 * 65 + 5 + 20 + 5


def test_double_buffered_loop_that_latency_bounds():
    # A half is free again 100 + 5 + 20 + 5 cycles after its transfer: two transfers every 65 + 130 cycles.
    # The last two start after two such periods.
    assert double_buffered(iterations=6, latency=100) == 6 + 2 * (65 + 130) + 65 + 65 + 130


def only_on_core_1(*body):
    return [op("if", cond=r(0)), *body, op("end_if")]


def test_barrier_of_two_cores():
    report = run(*only_on_core_1(fill(160)), op("barrier"), on=chip(cores=2))
    arrivals = [2, 2 + 20]  # core 0 skips to the end of the if
    assert report.cycles == max(arrivals) + 20 + 1
    assert report.barriers == 1
    assert report.cores[0]["sequencer"] == {"issue": 3, "scalar_load": 0, "queue_full": 0, "barrier": 40}
    assert report.cores[1]["sequencer"] == {"issue": 5, "scalar_load": 0, "queue_full": 0, "barrier": 38}
    assert report.cores[1]["vector"]["stalls"]["barrier"] == 21


def test_two_cores_share_the_memory():
    report = run(load(4096), on=chip(cores=2))
    assert report.cycles == 1 + 130 + 100
    assert [core["load"]["hbm_contention"] for core in report.cores] == [65, 65]


def test_what_a_short_transfer_leaves_goes_to_the_long_one():
    report = run(load(Affine(4096, ((0, -2048),))), on=chip(cores=2))
    # 2112 bytes each at 32 a cycle: 66 cycles; then 2048 at 64: 32 cycles.
    assert report.cycles == 1 + 66 + 32 + 100
    assert [core["load"]["busy"] for core in report.cores] == [98, 66]


def test_no_contention_below_the_bandwidth():
    report = run(load(4096), on=chip(cores=2, dma_bytes_per_cycle=32))
    assert report.cycles == 1 + 130 + 100
    assert report.cores[0]["load"]["hbm_contention"] == 0


def test_load_and_store_of_a_core_share_the_memory():
    report = run(load(4096), store(4096))
    # The load has 64 bytes' start: 2·4160 bytes in all end at 1 + 130.
    assert report.cycles == 1 + 130 + 100
    assert report.cores[0]["store"]["hbm_contention"] == 131 - 2 - 65


def test_flags_pass_a_transfer():
    body = [load(64), set_flag("load", 0), wait_flag("load", 0), store(64)]
    report = run(*body, on=chip(hbm_gbps=16, queue_depth=1))
    # The flags leave the queue of one while the load runs, so the store starts in cycle 4. The load
    # gets 3 · 16 bytes before and 8 a cycle after that: it ends in cycle 14, the wait 100 + 5 later,
    # after the store.
    assert report.cores[0]["load"]["busy"] == 13
    assert report.cores[0]["load"]["stalls"]["load"] == 100 + 5
    assert report.cycles == 14 + 100 + 5


BANKS = {"spm_banks": 4, "spm_bank_bytes_per_cycle": 64}
"""Of 128 KiB each."""


def test_banks_that_two_units_share():
    # The load moves 4096 bytes in 65 cycles, 63 bytes a cycle; the fill 640 in 20, 32 a cycle: together more
    # than 64. The fill comes later and pays: 20 · 95.0 / 64 = 29.7 cycles.
    report = run(load(4096), fill(160), on=chip(**BANKS))
    assert report.cores[0]["vector"] | {"stalls": {}} == {
        "busy": 30, "hbm_contention": 0, "bank_conflicts": 10, "stalls": {},
    }  # fmt: skip
    assert report.cores[0]["load"]["bank_conflicts"] == 0
    apart = run(load(4096), fill(160, at=131072), on=chip(**BANKS))
    assert apart.cores[0]["vector"]["busy"] == run(load(4096), fill(160)).cores[0]["vector"]["busy"] == 20


def test_an_instruction_has_a_bank_for_itself():
    report = run(fill(1600), on=chip(spm_banks=1, spm_bank_bytes_per_cycle=1))
    assert report.cycles == 1 + 10 + 100


def test_a_transfer_that_finds_its_bank_busy():
    # The fill takes 6400 bytes in 110 cycles, 58.2 a cycle of 64; the load asks for 63. In the 109 cycles
    # until the fill ends the load does 109 · 64 / 121.2 = 57.6 of its 65 cycles; 7.4 remain.
    report = run(fill(1600), load(4096), on=chip(**BANKS))
    assert report.cores[0]["load"]["busy"] == 117
    assert report.cores[0]["load"]["bank_conflicts"] == 117 - 65
    assert report.cycles == 2 + 117 + 100


def acc_tile(address: int = 0) -> TileOperand:
    return TileOperand("acc", "f32", Affine(address), 0, 64, 4)


@pytest.mark.parametrize(
    ("dst", "accumulate", "cause"),
    [(0, 0, "accumulator"), (0, 1, "vector"), (4096, 0, "vector")],
    ids=["a new sum in its place", "the sum goes on", "a sum elsewhere"],
)
def test_waiting_for_accumulators(dst, accumulate, cause):
    """The vector unit reads a product out of the accumulator; the next waits for its flag."""
    product = {"rows": 20, "dst_stride": 64}
    report = run(
        mx_load(),
        op("mx_mul", **product),
        set_flag("matrix", 0),
        wait_flag("vector", 0),
        op(
            "v_unary",
            op="copy",
            a=acc_tile(),
            dst=TileOperand("spm", "f32", Affine(0), 0, 64, 4),
            d0=1,
            d1=20,
            d2=16,
        ),
        set_flag("vector", 1),
        wait_flag("matrix", 1),
        op("mx_mul", dst=dst, accumulate=accumulate, **product),
    )
    stalls = report.cores[0]["matrix"]["stalls"]
    # Product, latency, flag; 10 + 20 cycles of copying, flag.
    assert {c: n for c, n in stalls.items() if n} == {"issue": 1, cause: 30 + 5 + 30 + 5, "barrier": 30}


def test_a_full_queue_holds_the_sequencer_up():
    body = [fill(160)] * 4
    report = run(*body, on=chip(queue_depth=1))
    # Issued in the cycles 1, 2, 21, 41: the third and the fourth when the one before them starts.
    assert report.cycles == 1 + 4 * 20
    assert report.cores[0]["sequencer"]["queue_full"] == 18 + 19
    assert run(*body).cores[0]["sequencer"]["queue_full"] == 0


def test_the_sequencer_bounds_tiny_work():
    scalars = [op("s_mov", rd=2, a=1)] * 99
    report = run(*scalars, fill(160), on=chip(issue_cycles=3))
    assert report.cycles == 3 * 100 + 20
    assert report.cores[0]["vector"]["stalls"]["issue"] == 300


def test_scalar_loads_steer_the_program():
    device = Device(chip(), threads=1)
    buffer = device.alloc(64)
    buffer.numpy().view(np.int64)[0] = 3
    body = [
        op("s_arg", rd=2, index=0),
        op("s_ld", dtype="i64", rd=3, addr=r(2)),
        op("loop", rd=4, lo=0, hi=r(3), step=1),
        fill(160),
        op("end_loop"),
    ]
    report = run(*body, args=((buffer, 0, 64), 7), kinds=(READ, SCALAR))
    assert report.cycles == 2 + 50 + 2 + 3 * 20
    assert report.cores[0]["sequencer"]["scalar_load"] == 50


def test_cycles_are_told_by_source_op():
    body = [load(4096, loc=0), op("barrier", loc=0), fill(160), op("barrier", loc=1)]
    report = run(*body, locs=("copy", "fill"))
    assert [op["source"] for op in report.ops] == ["copy", "fill"]
    assert [op["hbm_bytes"] for op in report.ops] == [4096, 0]
    assert sum(op["cycles"] for op in report.ops) == report.cycles
    assert report.ops[1]["cycles"] == 1 + 20 + 20


def shared(nbytes: int, cores: int, stride: int = 1, **fields):
    return load(nbytes, share=cores, share_stride=stride, **fields)


def test_a_shared_load_reads_memory_once():
    """4096 bytes and a row's 64 at 64 a cycle; found by the others 7 cycles later."""
    report = run(shared(4096, 4), on=chip(cores=4))
    assert report.cycles == 1 + 65 + 100 + 7
    assert (report.bytes_loaded, report.shared_bytes) == (4096, 3 * 4096)
    assert report.hbm_bound == 4096 / 64
    assert [core["load"]["busy"] for core in report.cores] == [65] * 4


def test_the_last_core_begins_a_shared_load():
    """Core 1 has a load of 64 + 64 bytes to make before: 2 cycles, and one more to issue."""
    body = [op("if", cond=r(0)), load(64), op("end_if"), shared(4096, 2)]
    report = run(*body, on=chip(cores=2))
    # Core 0: if, then the load in cycle 2. Core 1: if, load in cycle 2, end_if, the shared load in cycle 4.
    assert report.cycles == 4 + 65 + 100 + 7
    assert report.cores[0]["load"]["stalls"]["cores"] == 2
    assert report.cores[1]["load"]["stalls"]["cores"] == 0


def test_groups_share_the_memory():
    """Of 4 cores two groups: two transfers at a time, each of 65 cycles alone."""
    for stride in (1, 2):
        report = run(shared(4096, 2, stride), on=chip(cores=4))
        assert report.cycles == 1 + 130 + 100 + 7
        assert (report.bytes_loaded, report.shared_bytes) == (8192, 8192)
        assert report.cores[0]["load"]["hbm_contention"] == 65


def test_rows_and_columns_of_a_grid_share_in_turn():
    """The second load waits for the first of both its cores: one after the other."""
    body = [shared(4096, 2, 1), shared(4096, 2, 2)]
    assert run(*body, on=chip(cores=4)).cycles == 1 + 2 * 130 + 100 + 7


def test_an_empty_shared_load_is_waited_for():
    body = [op("if", cond=r(0)), load(4096), op("end_if"), shared(0, 2)]
    assert run(*body, on=chip(cores=2)).cycles == 2 + 65 + 100
    assert run(shared(0, 2), on=chip(cores=2)).cycles == 2
