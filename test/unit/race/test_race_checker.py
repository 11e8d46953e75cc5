"""The race checker on programs written by hand: with the right flags nothing is found, without one of them
exactly the pairs that it ordered."""

import dataclasses
import re

import pytest
import torch
from opennpu.compiler.image import ArgKind, build_image
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand, encode
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, NpuError

CHIP = dataclasses.replace(Chip.load("npu1-lite"), name="race", cores=2, spm_kib=64, acc_kib=64, hbm_gib=1)
BYTES = 4096  # of each of the two buffers
IN, OUT = Affine.reg(10), Affine.reg(11)  # their addresses
CORE = Affine.reg(0)


@pytest.fixture(scope="module")
def device() -> Device:
    return Device(CHIP, engine="reference", race_check=True)


def findings(device: Device, *text: Instruction | list[Instruction]) -> list[str]:
    """Runs a program of two buffers on both cores: what the checker says, line by line.

    Locations are numbered: instruction i of the text stands at `op i`. HBM addresses are given from the start
    of the second buffer, OUT.
    """
    flat = [i for part in text for i in (part if isinstance(part, list) else [part])]
    flat = [dataclasses.replace(instruction, loc=i) for i, instruction in enumerate(flat)]
    args = [Instruction("s_arg", {"rd": 10 + i, "index": i}, len(flat) + i) for i in range(2)]
    halt = Instruction("halt", loc=len(flat) + 2)
    locs = [f"op {i}" for i in range(len(flat))] + ["argument 0", "argument 1", "end"]
    image = build_image(CHIP, [ArgKind.WRITE] * 2, encode([*args, *flat, halt]), locs)
    stream, buffers = device.stream(), [device.alloc(BYTES) for _ in range(2)]
    for buffer in buffers:
        torch.from_numpy(buffer.numpy()).zero_()
    stream.launch(device.load(image), [(buffer, 0, BYTES) for buffer in buffers])
    try:
        stream.synchronize()
    except NpuError as error:
        first = buffers[1].address
        relative = lambda match: f"{int(match[1]) - first} to {int(match[2]) - first} of OUT"  # noqa: E731
        return [re.sub(r"(\d+) to (\d+) of HBM", relative, line) for line in str(error).splitlines()]
    return []


# ---- a small assembler: everything moves rows of 64 bytes


def _dma(
    name: str, dst, src, rows: int = 1, row: int = 64, dst_row: int = 64, src_row: int = 64
) -> Instruction:
    fields = {
        "dst": dst,
        "src": src,
        "n0": 1,
        "n1": 1,
        "n2": rows,
        "bytes": row,
        "ss0": 0,
        "ss1": 0,
        "ss2": src_row,
    }
    return Instruction(name, {**fields, "ds0": 0, "ds1": 0, "ds2": dst_row})


def load(spm, hbm=IN, **rows) -> Instruction:
    instruction = _dma("dma_load", spm, hbm, **rows)
    return dataclasses.replace(instruction, fields=instruction.fields | {"share": 1, "share_stride": 1})


def store(spm, hbm=OUT, **rows) -> Instruction:
    return _dma("dma_store", hbm, spm, **rows)


def neg(dst, src=None, space: str = "spm", rows: int = 1) -> Instruction:
    """Vector: dst = -src, both rows of 64 bytes."""
    a = TileOperand(
        space, "f32", src if isinstance(src, Affine) else Affine(dst if src is None else src), 0, 64, 4
    )
    return Instruction(
        "v_unary",
        {
            "op": "neg",
            "dst": TileOperand("spm", "f32", Affine(dst), 0, 64, 4),
            "a": a,
            "d0": 1,
            "d1": rows,
            "d2": 16,
        },
    )


def stationary(spm) -> Instruction:
    """Matrix: a 4 × 4 f32 tile, rows of 16 bytes side by side."""
    return Instruction("mx_load", {"src": spm, "dtype": "f32", "layout": "kn", "k": 4, "n": 4, "stride": 16})


def mul(acc, spm, accumulate: int = 0) -> Instruction:
    return Instruction(
        "mx_mul",
        {"dst": acc, "dst_stride": 16, "src": spm, "src_stride": 16, "rows": 4, "accumulate": accumulate},
    )


def set_(queue: str, flag) -> Instruction:
    return Instruction("set_flag", {"queue": queue, "flag": flag})


def wait(queue: str, flag) -> Instruction:
    return Instruction("wait_flag", {"queue": queue, "flag": flag})


def sync(source: str, target: str, flag: int) -> list[Instruction]:
    return [set_(source, flag), wait(target, flag)]


def loop(count: int, *body: Instruction | list[Instruction]) -> list[Instruction]:
    flat = [i for part in body for i in (part if isinstance(part, list) else [part])]
    begin = Instruction("loop", {"rd": 20, "lo": 0, "hi": count, "step": 1})
    return [begin, *flat, Instruction("end_loop")]


def on_core(core: int, *body: Instruction) -> list[Instruction]:
    test = Instruction("s_alu", {"op": "eq", "rd": 30, "a": CORE, "b": core})
    return [test, Instruction("if", {"cond": Affine.reg(30)}), *body, Instruction("end_if")]


BARRIER = Instruction("barrier")
HALF = 1024  # of a buffer: this core's share
MINE, MINE_OUT = Affine(0, ((10, 1), (0, HALF))), Affine(0, ((11, 1), (0, HALF)))


def pair(first: str, second: str, bytes: str, memory: str, order: str = "flag or barrier") -> str:
    return f"race: {first} and {second} bytes {bytes} of {memory}; no {order} orders them"


def by(op: int, name: str, queue: str, what: str = "", core: int = 0) -> str:
    return f"instruction {op + 2} ({name}) of op {op} [core {core}, {queue}] {what}".rstrip()


# ---- one core


def test_the_right_flags(device):
    text = [
        load(0, MINE),
        *sync("load", "vector", 0),
        neg(64, 0),
        *sync("vector", "store", 1),
        store(64, MINE_OUT),
    ]
    assert findings(device, text) == []


def test_missing_wait(device):
    found = findings(device, load(0, MINE), neg(64, 0), sync("vector", "store", 1), store(64, MINE_OUT))
    assert found == [
        pair(
            by(0, "dma_load", "load", "writes"), by(1, "v_unary", "vector", "reads"), "0 to 64", "scratchpad"
        )
    ]


def test_a_wait_orders_only_what_follows_it(device):
    found = findings(device, load(0, MINE), set_("load", 0), neg(64, 0), wait("vector", 0), neg(64, 0))
    assert found == [
        pair(
            by(0, "dma_load", "load", "writes"), by(2, "v_unary", "vector", "reads"), "0 to 64", "scratchpad"
        )
    ]


def test_a_set_covers_only_what_precedes_it(device):
    found = findings(device, set_("load", 0), load(0, MINE), wait("vector", 0), neg(64, 0))
    assert found == [
        pair(
            by(1, "dma_load", "load", "writes"), by(3, "v_unary", "vector", "reads"), "0 to 64", "scratchpad"
        )
    ]


def test_flags_chain(device):
    """store waits for vector, which has waited for load: so store is after load, too."""
    text = [
        load(0, MINE),
        *sync("load", "vector", 0),
        neg(64, 128),
        *sync("vector", "store", 1),
        store(0, MINE_OUT),
    ]
    assert findings(device, text) == []


def test_a_queue_is_in_order(device):
    assert findings(device, load(0, MINE), load(0, MINE), neg(64), neg(64, 64), neg(64)) == []


def test_reads_do_not_conflict(device):
    assert findings(device, neg(64, 0), store(0, MINE_OUT)) == []


def test_the_bytes_count(device):
    """Rows of 32 bytes, 64 apart: those between them are free; the ranges of one pair are joined."""
    even = load(0, MINE, rows=4, row=32)
    odd = store(32, MINE_OUT, rows=4, row=32)
    assert findings(device, even, odd) == []
    found = findings(device, even, store(31, MINE_OUT, rows=3, row=32))
    assert found == [
        pair(
            by(0, "dma_load", "load", "writes"),
            by(1, "dma_store", "store", "reads"),
            "31 to 160",
            "scratchpad",
        )
    ]


def test_write_after_read(device):
    found = findings(device, neg(64, 0), load(0, MINE))
    assert found == [
        pair(
            by(0, "v_unary", "vector", "reads"), by(1, "dma_load", "load", "writes"), "0 to 64", "scratchpad"
        )
    ]


def test_matrix_unit(device):
    """mx_load captures: overwriting its source needs an order with mx_load, not with mx_mul."""
    text = [load(0, MINE, rows=2), *sync("load", "matrix", 0), stationary(0)]
    captured = [*sync("matrix", "load", 1), load(0, MINE), mul(0, 64)]
    assert findings(device, text, captured, sync("matrix", "vector", 2), neg(256, 0, "acc")) == []
    found = findings(device, text, mul(0, 64, accumulate=1), neg(256, 0, "acc"), load(0, MINE))
    assert found == [
        pair(
            by(3, "mx_load", "matrix", "reads"), by(6, "dma_load", "load", "writes"), "0 to 64", "scratchpad"
        ),
        pair(
            by(4, "mx_mul", "matrix", "writes"), by(5, "v_unary", "vector", "reads"), "0 to 64", "accumulator"
        ),
    ]


def double_buffered(*, forward: bool = True, backward: bool = True, credits: int = 2) -> list[Instruction]:
    """load fills two slots in turn, vector reads them into a third place. Flag 0: full; flag 1: free."""
    slot = Instruction("s_alu", {"op": "and", "rd": 21, "a": Affine.reg(20), "b": 1})
    at = Affine(0, ((21, 64),))
    fill = [wait("load", 1)] * backward + [load(at, MINE)] + [set_("load", 0)] * forward
    use = [wait("vector", 0)] * forward + [neg(256, at)] + [set_("vector", 1)] * backward
    start = [set_("vector", 1)] * (credits * backward)
    end = [wait("load", 1)] * (credits * backward)
    return [*start, *loop(6, slot, fill, use), *end]


def test_double_buffering(device):
    assert findings(device, double_buffered()) == []
    assert findings(device, double_buffered(credits=1)) == []  # slower, and right


def test_double_buffering_without_the_backward_edge(device):
    found = findings(device, double_buffered(backward=False))
    # One pair of instructions, met first where the second iteration after overwrites the slot.
    assert found == [
        pair(
            by(5, "v_unary", "vector", "reads"), by(2, "dma_load", "load", "writes"), "0 to 64", "scratchpad"
        )
    ]


def test_double_buffering_without_the_forward_edge(device):
    found = findings(device, double_buffered(forward=False))
    assert found == [
        pair(
            by(5, "dma_load", "load", "writes"), by(6, "v_unary", "vector", "reads"), "0 to 64", "scratchpad"
        )
    ]


def test_double_buffering_with_too_many_credits(device):
    """Three credits for two slots let the load run ahead by one."""
    found = findings(device, double_buffered(credits=3))
    assert found == [
        pair(
            by(9, "v_unary", "vector", "reads"), by(6, "dma_load", "load", "writes"), "0 to 64", "scratchpad"
        )
    ]


def test_the_sequencer_reads_memory_when_it_issues(device):
    """Its loads are before what it issues later, and after a store only by a barrier."""
    read = Instruction("s_ld", {"dtype": "i64", "rd": 22, "addr": MINE_OUT})
    assert findings(device, read, store(0, MINE_OUT)) == []
    assert findings(device, store(0, MINE_OUT), BARRIER, read) == []
    found = findings(device, store(0, MINE_OUT), sync("store", "load", 0), read)
    assert found == [
        pair(by(0, "dma_store", "store", "writes"), by(3, "s_ld", "sequencer", "reads"), "0 to 8", "OUT")
    ]


UNDETERMINED = "between two barriers: which set meets which wait is not determined"


def test_a_flag_of_two_queues(device):
    """Either set may meet the wait, so it orders nothing for sure."""
    one, other = by(0, "set_flag", "load"), by(1, "set_flag", "store")
    found = findings(device, set_("load", 7), set_("store", 7), wait("vector", 7), wait("vector", 7))
    assert found == [f"flag 7 is set by {one} and by {other} {UNDETERMINED}"]
    one, other = by(2, "wait_flag", "vector"), by(3, "wait_flag", "store")
    found = findings(device, set_("load", 7), set_("load", 7), wait("vector", 7), wait("store", 7))
    assert found == [f"flag 7 is waited for by {one} and by {other} {UNDETERMINED}"]
    assert findings(device, sync("load", "vector", 7), BARRIER, sync("store", "matrix", 7)) == []


# ---- between cores


def test_cores_share_hbm(device):
    """Both write one row; each its own is right; so is reading what the other reads."""
    assert findings(device, load(0, IN), sync("load", "store", 0), store(0, MINE_OUT)) == []
    found = findings(device, store(0, OUT))
    assert found == [
        pair(
            by(0, "dma_store", "store", "writes"),
            by(0, "dma_store", "store", "writes", 1),
            "0 to 64",
            "OUT",
            "barrier",
        )
    ]


def test_a_barrier_orders_cores(device):
    other = Affine(HALF, ((11, 1), (0, -HALF)))
    assert findings(device, store(0, MINE_OUT), BARRIER, load(0, other)) == []
    found = findings(device, store(0, MINE_OUT), load(64, other))
    assert found == [
        pair(
            by(0, "dma_store", "store", "writes"),
            by(1, "dma_load", "load", "reads", 1),
            "0 to 64",
            "OUT",
            "barrier",
        )
    ]


def test_overlapping_shares(device):
    share = Affine(0, ((11, 1), (0, 192)))
    assert findings(device, store(0, share, rows=3)) == []
    found = findings(device, store(0, share, rows=4))
    assert found == [
        pair(
            by(0, "dma_store", "store", "writes"),
            by(0, "dma_store", "store", "writes", 1),
            "192 to 256",
            "OUT",
            "barrier",
        )
    ]


def test_indirect_copies(device):
    """All tokens are token 0 of the list in IN: both cores scatter to one row."""
    fields = {"dst": OUT, "src": 0, "index": IN, "index_dtype": "i64", "count": 2, "limit": 8, "group": 1}
    strides = {"group_stride": 64, "index_stride": 0, "rows": 1, "row_bytes": 16, "row_stride": 0}
    local = {"src_index_stride": 16, "src_row_stride": 0}
    scatter = Instruction("dma_scatter", {**fields, **strides, **local})
    assert findings(device, on_core(0, scatter)) == []
    found = findings(device, scatter)
    assert found == [
        pair(
            by(0, "dma_scatter", "store", "writes"),
            by(0, "dma_scatter", "store", "writes", 1),
            "0 to 16",
            "OUT",
            "barrier",
        )
    ]


def test_scratchpads_are_apart(device):
    assert findings(device, on_core(0, load(0, MINE)), on_core(1, neg(0))) == []
