"""Random scalar programs: lowered, run on the reference engine, against Python's integers."""

import json
import random
from dataclasses import replace

import pytest
from opennpu.compiler.assembler import assemble
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.dialects import load_all, npu_tile
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.npu_tile.dialect import ArgOp, KernelOp, LoadScalarOp
from opennpu.dialects.npu_tile.types import constant, i64
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, tensor_view
from torch_mlir import ir
from torch_mlir.dialects import arith, func, scf

CHIP = replace(Chip.load("npu1-lite"), name="scalars", cores=1)
ARGUMENTS = (3, -7, 1 << 40, 12)
VALUES = 40
OUT = len(ARGUMENTS)  # the launch argument that holds the results
Predicate = arith.CmpIPredicate


def wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def compare(predicate):
    return lambda a, b: arith.extui(i64(), arith.cmpi(predicate, a, b))


BINARY = {
    arith.addi: lambda a, b: a + b,
    arith.subi: lambda a, b: a - b,
    arith.muli: lambda a, b: a * b,
    arith.minsi: min,
    arith.maxsi: max,
    arith.andi: lambda a, b: a & b,
    arith.ori: lambda a, b: a | b,
    compare(Predicate.slt): lambda a, b: int(a < b),
    compare(Predicate.sge): lambda a, b: int(a >= b),
    compare(Predicate.eq): lambda a, b: int(a == b),
    compare(Predicate.ne): lambda a, b: int(a != b),
}
BY_CONSTANT = {  # the second operand is a positive constant
    arith.muli: lambda a, b: a * b,
    arith.floordivsi: lambda a, b: a // b,
    arith.ceildivsi: lambda a, b: -(-a // b),
    arith.remsi: lambda a, b: a % b,
    arith.shli: lambda a, b: a << b,
    arith.shrsi: lambda a, b: a >> b,
}


def grow(rng: random.Random, pool: list[tuple[ir.Value, int]]) -> None:
    """Adds one random value, with what it should be."""
    (a, x), (b, y), (c, z) = rng.choices(pool, k=3)
    kind = rng.randrange(5)
    if kind == 0:
        number = rng.choice([1, 2, 3, 8, 60])
        op, meaning = rng.choice(list(BY_CONSTANT.items()))
        pool.append((op(a, constant(number)), wrap(meaning(x, number))))
    elif kind == 1:
        condition = arith.cmpi(Predicate.sgt, c, constant(0))
        pool.append((arith.select(condition, a, b), x if z > 0 else y))
    else:
        op, meaning = rng.choice(list(BINARY.items()))
        pool.append((op(a, b), wrap(meaning(x, y))))


def store(out: ir.Value, row: ir.Value, value: ir.Value) -> None:
    """The value as word `row` of the output."""
    word = npu_tile.alloc([1], "i64")
    zeros = dict.fromkeys(("step0", "step1", "step2"), 0)
    ones = dict.fromkeys(("d0", "d1", "d2"), 1)
    npu_tile.build("v_iota", {"dst": (word, 0), **ones, "base": value, **zeros}, {"dst_strides": [0, 0, 8]})
    strides = dict.fromkeys(("ss0", "ss1", "ss2", "ds0", "ds1", "ds2"), 0)
    counts = dict.fromkeys(("n0", "n1", "n2"), 1)
    address = arith.addi(out, arith.muli(row, constant(8)))
    npu_tile.build("dma_store", {"dst": address, "src": (word, 0), "bytes": 8, **counts, **strides})


def compile_program(body) -> bytes:
    """The image of a kernel that `body(args)` builds."""
    kinds = [{"kind": "symbol"}] * OUT + [{"kind": "output"}]
    with load_all(ir.Context()), ir.Location.name("scalars"):
        module = ir.Module.create()
        signature = json.dumps({"args": kinds, "report": [{}]})
        module.operation.attributes["npu_tile.signature"] = ir.StringAttr.get(signature)
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", ([], []))
        with ir.InsertionPoint(main.add_entry_block()):
            args = [ArgOp(ir.IntegerAttr.get(i64(), i)).res for i in range(OUT + 1)]
            kernel = KernelOp(ir.StringAttr.get("scalars"), ir.StringAttr.get("test"))
            with ir.InsertionPoint(kernel.body.blocks.append()):
                body(args)
            func.ReturnOp([])
        run_pipeline(module, "npu-tile-plan-memory,npu-tile-insert-sync,convert-tile-to-isa")
        return assemble(module, CHIP)


def run(device: Device, image: bytes, words: int) -> list[int]:
    out = device.alloc(8 * words)
    stream = device.stream()
    stream.launch(device.load(image), [*ARGUMENTS, (out, 0, out.bytes)])
    stream.synchronize()
    return tensor_view(out, "i64", (words,)).tolist()


@pytest.fixture(scope="module")
def device():
    return Device(CHIP, engine="reference", hbm_bytes=1 << 20)


@pytest.mark.parametrize("seed", range(8))
def test_expressions(device, seed):
    expected: list[int] = []

    def body(args):
        rng = random.Random(seed)
        pool = [*zip(args[:OUT], ARGUMENTS, strict=True), (constant(5), 5)]
        for _ in range(VALUES):
            grow(rng, pool)
        for row, (value, meaning) in enumerate(pool):
            store(args[OUT], constant(row), value)
            expected.append(meaning)

    image = compile_program(body)
    assert run(device, image, len(expected)) == expected


def test_values_live_through_loops(device):
    """What stands before a loop is still there in every iteration, whatever the body computes."""

    def body(args):
        lo, step = constant(2), constant(3)
        before = arith.minsi(args[0], args[3])
        loop = scf.ForOp(lo, args[3], step)
        with ir.InsertionPoint(loop.body):
            other = arith.maxsi(loop.induction_variable, args[1])
            store(args[OUT], loop.induction_variable, arith.muli(before, arith.minsi(other, args[2])))
            scf.YieldOp([])

    got = run(device, compile_program(body), 12)
    assert [got[i] for i in range(2, 12, 3)] == [3 * i for i in range(2, 12, 3)]


def test_too_many_live_scalars():
    def body(args):
        address = args[OUT]
        values = [LoadScalarOp(address, ir.StringAttr.get("i64")).res for _ in range(ISA.registers)]
        for row, value in enumerate(values):
            store(address, constant(row), value)

    with pytest.raises(CompileError, match="more than 256 scalars are alive at once") as error:
        compile_program(body)
    assert error.value.problems[0].remedy
