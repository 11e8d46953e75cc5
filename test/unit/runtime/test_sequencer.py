"""Scalar instructions, loops, flags and barriers against Python's integers."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_builder import READ, SCALAR, WRITE, Affine, image, op, r, run_registers, store_register
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.device import Device, NpuError

I64 = (
    st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-9, 9) | st.sampled_from([-(1 << 63), (1 << 63) - 1])
)
MANY = settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


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
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
}


@pytest.fixture(scope="module")
def reference():
    return Device("npu1-lite", engine="reference", hbm_bytes=1 << 20, max_instructions=100_000)


def fails(device, body, message, status="trap", args=(), values=()):
    stream = device.stream()
    stream.launch(device.load(image(*body, args=args, locs=("here",))), list(values))
    with pytest.raises(NpuError, match=message) as error:
        stream.synchronize()
    assert error.value.status == status


@pytest.mark.parametrize("name", ISA.enums["alu"])
@MANY
@given(a=I64, b=I64)
def test_s_alu(reference, name, a, b):
    arguments = [op("s_arg", rd=2, index=1), op("s_arg", rd=3, index=2)]
    body = [*arguments, op("s_alu", op=name, rd=4, a=r(2), b=r(3))]
    if b == 0 and name in ("div", "ceildiv", "mod"):
        with pytest.raises(NpuError, match=r"\(s_alu\).*division by 0"):
            run_registers(reference, body, 4, (a, b))
    else:
        assert run_registers(reference, body, 4, (a, b)) == [wrap(ALU[name](a, b))] * 2


@MANY
@given(imm=I64, terms=st.lists(st.tuples(I64, I64), max_size=4))
def test_s_mov_adds_four_registers(reference, imm, terms):
    body = [op("s_mov", rd=10 + i, a=value) for i, (value, _) in enumerate(terms)]
    affine = Affine(imm, tuple((10 + i, coef) for i, (_, coef) in enumerate(terms)))
    expected = wrap(imm + sum(value * coef for value, coef in terms))
    assert run_registers(reference, [*body, op("s_mov", rd=2, a=affine)], 2) == [expected] * 2


def test_first_registers(reference):
    assert run_registers(reference, [], 0) == [0, 1]
    assert run_registers(reference, [], 1) == [2, 2]
    assert run_registers(reference, [], 77) == [0, 0]


@MANY
@given(lo=st.integers(-20, 20), hi=st.integers(-20, 20), step=st.integers(1, 7))
def test_loop(reference, lo, hi, step):
    """A sum of squares, weighted by an inner loop and an if."""
    body = [
        op("s_mov", rd=2, a=lo),
        op("s_mov", rd=3, a=hi),
        op("loop", rd=4, lo=r(2), hi=r(3), step=step),
        op("s_mov", rd=2, a=100),  # the bounds are read once
        op("s_alu", op="mod", rd=6, a=r(4), b=2),
        op("if", cond=r(6)),
        op("loop", rd=7, hi=3, step=1),
        op("s_mov", rd=5, a=Affine(0, ((5, 1), (4, 1), (7, 1)))),
        op("end_loop"),
        op("end_if"),
        op("end_loop"),
    ]
    expected = sum(x + y for x in range(lo, hi, step) if x % 2 for y in range(3))
    assert run_registers(reference, body, 5) == [expected] * 2


def test_loop_ends_where_its_counter_would_overflow(reference):
    top = (1 << 63) - 1
    body = [op("loop", rd=2, lo=top - 5, hi=top, step=4), op("s_mov", rd=3, a=r(3, 1, 1)), op("end_loop")]
    assert run_registers(reference, body, 3) == [2, 2]


def test_loop_step_from_a_register_must_be_positive(reference):
    body = [op("s_mov", rd=2, a=-1), op("loop", rd=3, hi=5, step=r(2)), op("end_loop")]
    fails(reference, body, r"instruction 1 \(loop\) of here on core 0: the step of the loop is -1")


@pytest.mark.parametrize(("dtype", "values"), [("i64", [-5, 1 << 40]), ("i32", [-5, 1 << 30])])
def test_s_ld(reference, dtype, values):
    width = 8 if dtype == "i64" else 4
    source, out = reference.alloc(64), reference.alloc(64)
    source.numpy()[: 2 * width] = np.array(values, f"<i{width}").view(np.uint8)
    body = [
        op("s_arg", rd=2, index=0),
        op("s_arg", rd=250, index=1),
        op("s_ld", dtype=dtype, rd=3, addr=Affine(0, ((2, 1), (0, width)))),
        *store_register(3, Affine(0, ((250, 1), (0, 8)))),
    ]
    stream = reference.stream()
    program = reference.load(image(*body, args=(READ, WRITE)))
    stream.launch(program, [(source, 0, 2 * width), (out, 0, 16)])
    stream.synchronize()
    assert out.numpy()[:16].view(np.int64).tolist() == values
    stream.launch(program, [(source, 0, 2 * width - 1), (out, 0, 16)])
    with pytest.raises(NpuError, match=r"\(s_ld\).*core 1: read of . bytes at HBM address"):
        stream.synchronize()


def test_wait_without_set_is_a_deadlock(reference):
    fails(reference, [op("wait_flag", queue="vector", flag=7)], "deadlock: no earlier set_flag for flag 7")


def test_flags_count_and_must_end_at_zero(reference):
    pair = [op("set_flag", flag=3), op("set_flag", flag=3), op("wait_flag", flag=3)]
    fails(reference, pair, r"\(halt\).*flag 3 is still 1")
    assert run_registers(reference, [*pair, op("wait_flag", flag=3)], 1) == [2, 2]


def test_flag_number_from_a_register(reference):
    fails(reference, [op("s_mov", rd=2, a=64), op("set_flag", flag=r(2))], "there is no flag 64")


def test_every_core_must_run_as_many_barriers(reference):
    body = [op("if", cond=r(0)), op("barrier"), op("end_if")]
    fails(reference, body, "core 1 waits at a barrier .* core 0 has halted")


def test_watchdog_names_the_instruction(reference):
    body = [op("loop", rd=2, hi=1 << 60, step=1), op("s_mov", rd=3), op("end_loop")]
    fails(reference, body, r"\((s_mov|end_loop)\) of here.*limit of 100000 instructions", "timeout")


def test_the_error_of_the_lowest_core_is_reported(reference):
    body = [op("s_arg", rd=2, index=0), op("s_mov", rd=3, a=7), op("s_alu", op="div", rd=3, a=1, b=r(2))]
    for _ in range(5):
        fails(reference, body, "core 0", args=(SCALAR,), values=(0,))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_cores_meet_at_barriers_whatever_the_threads(engine, threads):
    """Each core stores its number; after the barrier each reads the other's."""
    device = Device("npu1-lite", engine=engine, threads=threads, hbm_bytes=1 << 20)
    mine = Affine(0, ((250, 1), (0, 8)))
    body = [
        op("s_arg", rd=250, index=0),
        op("loop", rd=10, hi=50, step=1),
        op("s_mov", rd=2, a=Affine(0, ((0, 100), (10, 1)))),
        *store_register(2, mine),
        op("barrier"),
        op("s_ld", rd=3, dtype="i64", addr=Affine(8, ((250, 1), (0, -8)))),
        op("s_mov", rd=4, a=Affine(0, ((4, 1), (3, 1)))),
        op("barrier"),
        op("end_loop"),
        *store_register(4, mine),
    ]
    out = device.alloc(16)
    stream = device.stream()
    stream.launch(device.load(image(*body, args=(WRITE,))), [(out, 0, 16)])
    stream.synchronize()
    assert out.numpy().view(np.int64).tolist() == [50 * 100 + 1225, 1225]
