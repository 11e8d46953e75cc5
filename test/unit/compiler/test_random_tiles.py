"""Random kernels through all passes on npu_tile, run on the chip's reference engine.

Two independent judges: the race checker of the engine, which knows nothing of the compiler's
analysis, and the same program computed one operation after another with numpy.
"""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from opennpu.compiler.assembler import assemble
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.dialects import load_all, npu_tile
from opennpu.dialects.npu_tile.dialect import ArgOp, KernelOp
from opennpu.dialects.npu_tile.types import constant, i64
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, tensor_view
from torch_mlir import ir
from torch_mlir.dialects import arith, func, scf

CHIP = replace(Chip.load("npu1-lite"), name="random", cores=1, spm_kib=2, acc_kib=1)
WIDTH = 16  # f32 elements of a buffer
SOURCES, SINKS = 8, 4
PASSES = [*PIPELINE["npu_tile"][1:], *PIPELINE["npu_isa"]]


class RandomKernel:
    """A random tree of loops, ifs and operations; `build` makes its IR, `run` computes it."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.arguments = [self.random.randrange(4) for _ in range(3)]
        self.buffers = 0
        self.tree = [("alloc", self._buffer(), "spm"), *self._block(3, [0])]

    def _buffer(self) -> int:
        self.buffers += 1
        return self.buffers - 1

    def _block(self, depth: int, visible: list[int]) -> list[tuple]:
        visible = list(visible)
        tree = []
        for _ in range(self.random.randint(2, 5)):
            kind = self.random.choice(["alloc", "load", "compute", "compute", "store", "for", "if"])
            if kind == "alloc" and self.buffers < 12:
                buffer, space = self._buffer(), self.random.choice(["spm", "spm", "acc"])
                fill = ("compute", buffer, visible[0], visible[0])
                tree += [("alloc", buffer, space), fill]
                visible.append(buffer)
            elif kind in ("for", "if") and depth:
                tree.append((kind, self.random.randrange(3), self._block(depth - 1, visible)))
            elif kind == "load":
                tree.append(("load", self.random.choice(visible), self.random.randrange(SOURCES)))
            elif kind == "store":
                tree.append(("store", self.random.randrange(SINKS), self.random.choice(visible)))
            else:
                tree.append(("compute", *self.random.choices(visible, k=3)))
        return tree

    # ---- as IR

    def build(self, tree: list[tuple], values: dict[int, ir.Value], args: list[ir.Value]) -> None:
        for op in tree:
            match op:
                case ("alloc", buffer, space):
                    values[buffer] = npu_tile.alloc([WIDTH], "f32", space)
                    self._zero(values[buffer])
                case ("load", buffer, source):
                    self._load(values, buffer, arith.addi(args[3], constant(4 * WIDTH * source)))
                case ("store", sink, buffer):
                    self._store(values, arith.addi(args[4], constant(4 * WIDTH * sink)), buffer)
                case ("compute", dst, a, b):
                    self._compute(values[dst], values[a], values[b])
                case ("for", arg, body):
                    loop = scf.ForOp(constant(1), arith.addi(args[arg], constant(1)), constant(1))
                    with ir.InsertionPoint(loop.body):
                        self.build(body, dict(values), args)
                        scf.YieldOp([])
                case ("if", arg, body):
                    condition = arith.cmpi(arith.CmpIPredicate.sgt, args[arg], constant(1))
                    branch = scf.IfOp(condition)
                    with ir.InsertionPoint(branch.then_block):
                        self.build(body, dict(values), args)
                        scf.YieldOp([])

    def _zero(self, buffer: ir.Value) -> None:
        dims = {"d0": 1, "d1": 1, "d2": WIDTH}
        npu_tile.build("v_fill", {"dst": (buffer, 0), **dims}, {"dst_strides": [0, 0, 4], "value": 0.0})

    def _compute(self, dst: ir.Value, a: ir.Value, b: ir.Value) -> None:
        operands = {"dst": (dst, 0), "a": (a, 0), "b": (b, 0), "d0": 1, "d1": 1, "d2": WIDTH}
        strides = {f"{f}_strides": [0, 0, 4] for f in ("dst", "a", "b")}
        npu_tile.build("v_binary", operands, {"op": "sub", **strides})

    def _load(self, values: dict[int, ir.Value], buffer: int, address: ir.Value) -> None:
        if npu_tile.types.space_of(values[buffer].type) == "spm":
            alone = {"share": 1, "share_stride": 1}
            npu_tile.build("dma_load", {"dst": (values[buffer], 0), "src": address, **_DMA, **alone})

    def _store(self, values: dict[int, ir.Value], address: ir.Value, buffer: int) -> None:
        if npu_tile.types.space_of(values[buffer].type) == "spm":
            npu_tile.build("dma_store", {"dst": address, "src": (values[buffer], 0), **_DMA})

    # ---- one operation after another

    def run(self, sources: np.ndarray, sinks: np.ndarray) -> None:
        self._run(self.tree, {}, {}, sources, sinks)

    def _run(self, tree, values, spaces, sources, sinks) -> None:
        for op in tree:
            match op:
                case ("alloc", buffer, space):
                    values[buffer], spaces[buffer] = np.zeros(WIDTH, np.float32), space
                case ("load", buffer, source) if spaces[buffer] == "spm":
                    values[buffer][:] = sources[source]
                case ("store", sink, buffer) if spaces[buffer] == "spm":
                    sinks[sink] = values[buffer]
                case ("compute", dst, a, b):
                    values[dst][:] = values[a] - values[b]
                case ("for", arg, body):
                    for _ in range(self.arguments[arg]):
                        self._run(body, dict(values), dict(spaces), sources, sinks)
                case ("if", arg, body) if self.arguments[arg] > 1:
                    self._run(body, dict(values), dict(spaces), sources, sinks)


_DMA = {
    **dict.fromkeys(("n0", "n1", "n2"), 1),
    "bytes": 4 * WIDTH,
    **dict.fromkeys(("ss0", "ss1", "ss2", "ds0", "ds1", "ds2"), 0),
}


def compile_kernel(kernel: RandomKernel) -> bytes:
    kinds = [{"kind": "symbol"}] * 3 + [{"kind": "input"}, {"kind": "output"}]
    with load_all(ir.Context()), ir.Location.name("random"):
        module = ir.Module.create()
        signature = json.dumps({"args": kinds, "report": [{}]})
        module.operation.attributes["npu_tile.signature"] = ir.StringAttr.get(signature)
        with ir.InsertionPoint(module.body):
            main = func.FuncOp("main", ([], []))
        with ir.InsertionPoint(main.add_entry_block()):
            args = [ArgOp(ir.IntegerAttr.get(i64(), i)).res for i in range(5)]
            op = KernelOp(ir.StringAttr.get("random"), ir.StringAttr.get("test"))
            with ir.InsertionPoint(op.body.blocks.append()):
                kernel.build(kernel.tree, {}, args)
            func.ReturnOp([])
        module.operation.verify()
        run_pipeline(module, [stage(name, CHIP) for name in PASSES])
        return assemble(module, CHIP)


@pytest.fixture(scope="module")
def device():
    return Device(CHIP, engine="reference", race_check=True, hbm_bytes=1 << 20)


@pytest.mark.parametrize("seed", range(40))
def test_no_race_and_the_same_result(device, seed):
    kernel = RandomKernel(seed)
    program = device.load(compile_kernel(kernel))
    sources = np.random.default_rng(seed).standard_normal((SOURCES, WIDTH), np.float32)
    for arguments in ([0, 1, 2], [3, 2, 0], [2, 2, 2], [1, 0, 3]):
        kernel.arguments = arguments
        expected = np.zeros((SINKS, WIDTH), np.float32)
        kernel.run(sources, expected)
        buffers = [device.alloc(sources.nbytes), device.alloc(expected.nbytes)]
        tensor_view(buffers[0], "f32", sources.shape).copy_(torch.from_numpy(sources))
        tensor_view(buffers[1], "f32", expected.shape).zero_()
        stream = device.stream()
        stream.launch(program, [*arguments, *((b, 0, b.bytes) for b in buffers)])
        stream.synchronize()
        np.testing.assert_array_equal(tensor_view(buffers[1], "f32", expected.shape).numpy(), expected)
