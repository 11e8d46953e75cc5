"""The sequencer's instructions; a register is seen through v_iota, which stores it."""

import pytest
import torch
from chip_lab import HBM_REGISTER, Lab, Result
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.runtime.device import NpuError

R = Affine.reg
INTEGERS = [0, 1, 2, -1, 7, -7, 3, 63, 64, -(2**63), 2**63 - 1]


def wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


def mov(rd: int, a) -> Instruction:
    return Instruction("s_mov", {"rd": rd, "a": a})


def loop(rd: int, lo, hi, step, *body: Instruction) -> list[Instruction]:
    begin = Instruction("loop", {"rd": rd, "lo": lo, "hi": hi, "step": step})
    return [begin, *body, Instruction("end_loop")]


def if_(cond, *body: Instruction) -> list[Instruction]:
    return [Instruction("if", {"cond": cond}), *body, Instruction("end_if")]


def on(name: str, queue: str, flag) -> Instruction:
    return Instruction(name, {"queue": queue, "flag": flag})


class Probe:
    """A row of i64 in scratchpad that registers are stored to."""

    def __init__(self, lab: Lab, count: int):
        self.lab = lab
        self.tile = lab.tile((1, 1, count), "i64", torch.zeros(1), "spm", rows=True)
        self.count = 0

    def store(self, value, at=None) -> Instruction:
        """Stores a value at the next place, or at place `at` (a value of stride 8)."""
        place = Affine(self.tile.address + 8 * self.count) if at is None else at
        self.count += at is None
        one = TileOperand("spm", "i64", place, 0, 0, 8)
        extents = {"d0": 1, "d1": 1, "d2": 1}
        return Instruction(
            "v_iota", {"dst": one, **extents, "base": value, "step0": 0, "step1": 0, "step2": 0}
        )

    def at(self, register: int) -> Affine:
        return Affine(self.tile.address, ((register, 8),))

    def read(self, got: Result) -> list[int]:
        return self.tile.view(got.after).flatten().tolist()


def test_s_mov_and_the_first_registers(lab):
    probe = Probe(lab, 5)
    text = [
        mov(40, Affine(5)),
        mov(41, Affine(-3, ((40, 2**62), (40, 7)))),
        mov(42, Affine(1, ((40, 1), (41, -1)))),
    ]
    stores = [probe.store(v) for v in (R(41), R(42), R(0), R(1), R(200))]
    second = wrap(5 * 2**62 + 35 - 3)
    assert probe.read(lab.run(*text, *stores)) == [second, wrap(1 + 5 - second), 0, 1, 0]


ALU = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "shl": lambda a, b: a << (b % 64),
    "shr": lambda a, b: a >> (b % 64),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
DIVISIONS = ("div", "ceildiv", "mod")


@pytest.mark.parametrize("op", ALU)
def test_s_alu(lab, op):
    pairs = [(a, b) for a in INTEGERS for b in INTEGERS if b or op not in DIVISIONS]
    probe = Probe(lab, len(pairs))
    text = []
    for a, b in pairs:
        text += [
            mov(40, a),
            Instruction("s_alu", {"op": op, "rd": 41, "a": R(40), "b": b}),
            probe.store(R(41)),
        ]
    want = [wrap(int(ALU[op](a, b))) for a, b in pairs]
    assert probe.read(lab.run(*text)) == want


@pytest.mark.parametrize("op", DIVISIONS)
def test_s_alu_division_by_zero(lab, op):
    with pytest.raises(NpuError, match="division by 0"):
        lab.run(Instruction("s_alu", {"op": op, "rd": 40, "a": 1, "b": R(41)}))


@pytest.mark.parametrize("dtype", ["i64", "i32"])
def test_s_ld(lab, dtype):
    values = lab.values(dtype, (6,))
    size = values.element_size()
    probe = Probe(lab, 6)
    text = []
    for i in range(6):
        address = Affine(i * size, ((HBM_REGISTER, 1),))
        text += [Instruction("s_ld", {"dtype": dtype, "rd": 40, "addr": address}), probe.store(R(40))]
    assert probe.read(lab.run(*text, hbm=(values.view(torch.uint8),))) == values.tolist()


def test_s_arg(lab):
    """The laboratory itself reads the buffers' addresses; here once more, by hand."""
    probe = Probe(lab, 2)
    loads = [
        Instruction("s_arg", {"rd": 50, "index": 5}),
        Instruction("s_ld", {"dtype": "i64", "rd": 51, "addr": R(50)}),
    ]
    second = torch.tensor([77]).view(torch.uint8)
    text = [
        *loads,
        probe.store(R(51)),
        mov(52, Affine(0, ((50, 1), (HBM_REGISTER + 1, -1)))),
        probe.store(R(52)),
    ]
    assert probe.read(lab.run(*text, hbm=(lab.bytes(8), second))) == [77, 0]


@pytest.mark.parametrize(
    ("lo", "hi", "step"), [(0, 5, 1), (2, 11, 3), (-4, 4, 2), (3, 3, 1), (5, 2, 1), (0, 1, 100)]
)
def test_loop(lab, lo, hi, step):
    probe = Probe(lab, 20)
    want = list(range(lo, hi, step))
    got = lab.run(
        mov(40, 0), *loop(41, lo, hi, step, probe.store(R(41), probe.at(40)), mov(40, Affine(1, ((40, 1),))))
    )
    assert probe.read(got) == want + [0] * (20 - len(want))


def test_loop_reads_its_bounds_once_and_nests(lab):
    probe = Probe(lab, 16)
    inner = loop(
        42,
        R(41),
        4,
        1,
        probe.store(Affine(0, ((41, 10), (42, 1))), probe.at(40)),
        mov(40, Affine(1, ((40, 1),))),
    )
    got = lab.run(mov(40, 0), mov(43, 4), *loop(41, 0, R(43), 1, mov(43, 100), *inner))
    want = [10 * i + j for i in range(4) for j in range(i, 4)]
    assert probe.read(got) == want + [0] * (16 - len(want))


def test_loop_stops_before_it_wraps(lab):
    probe = Probe(lab, 1)
    got = lab.run(*loop(40, 2**63 - 2, 2**63 - 1, 5, mov(41, Affine(1, ((41, 1),)))), probe.store(R(41)))
    assert probe.read(got) == [1]


@pytest.mark.parametrize("step", [0, -1])
def test_loop_needs_a_positive_step(lab, step):
    with pytest.raises(NpuError, match=f"the step of the loop is {step}"):
        lab.run(mov(40, step), *loop(41, 0, 5, R(40)))
    with pytest.raises(NpuError, match="its step is not positive"):  # a constant: known before anything runs
        lab.run(*loop(41, 0, 5, step))


def test_if(lab):
    probe = Probe(lab, 4)
    stores = [probe.store(7) for _ in range(4)]
    text = [
        mov(40, -1),
        *if_(R(40), stores[0]),
        *if_(0, stores[1], *if_(1, stores[2])),
        *if_(1, *if_(1, stores[3])),
    ]
    assert probe.read(lab.run(*text)) == [7, 0, 0, 7]


def test_flags_count(lab):
    """Results do not depend on flags; the counting does: two sets serve two waits, a third is a deadlock."""
    credits = [on("set_flag", "matrix", 3), on("set_flag", "matrix", 3)]
    wait = on("wait_flag", "load", Affine(3))
    lab.run(*credits, wait, wait)
    with pytest.raises(NpuError, match="deadlock: no earlier set_flag for flag 3"):
        lab.run(*credits, wait, wait, wait)


@pytest.mark.parametrize("flag", [-1, 64, 1 << 40])
def test_no_such_flag(lab, flag):
    with pytest.raises(NpuError, match=f"there is no flag {flag}"):
        lab.run(mov(40, flag), on("set_flag", "load", R(40)))


def test_halt_wants_every_flag_taken(lab):
    with pytest.raises(NpuError, match="flag 5 is still 1 at halt"):
        lab.run(on("set_flag", "vector", 5))


def test_barrier_lets_queues_meet(lab):
    probe = Probe(lab, 1)
    assert probe.read(lab.run(probe.store(5), Instruction("barrier"))) == [5]
