"""Runs `npu_tile` code in numpy, as written: what the kernels compute before any later pass.

Engine ops act at once and in program order, one core after the other. Every buffer is
filled with garbage when it is made, every HBM access must stay inside one launch buffer,
and two cores must not write the same byte of HBM in one kernel.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import erf as scalar_erf

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.npu_tile.effects import is_derived
from opennpu.dialects.symbols import Sym
from torch_mlir import ir

DTYPES = {
    "f32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "i64": np.int64,
    "i32": np.int32,
    "i8": np.int8,
    "i1": np.bool_,
    "bool": np.bool_,
}
GARBAGE = 0xAB
NOBODY = -1
GAP = 4096  # bytes between launch buffers, so that stray accesses are seen


class Hbm:
    """Launch buffers at addresses of their own."""

    def __init__(self, buffers: Sequence[np.ndarray | int]):
        """Arrays are buffers, ints are scalar arguments; `arguments` is what the program sees."""
        self.arguments: list[int] = []
        self.ranges: list[tuple[int, int]] = []
        top = GAP
        for buffer in buffers:
            if isinstance(buffer, int):
                self.arguments.append(buffer)
                continue
            self.arguments.append(top)
            self.ranges.append((top, top + buffer.nbytes))
            top += -(-buffer.nbytes // 64) * 64 + GAP
        self.memory = np.full(top, GARBAGE, np.uint8)
        arrays = [b for b in buffers if not isinstance(b, int)]
        for (lo, hi), array in zip(self.ranges, arrays, strict=True):
            self.memory[lo:hi] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, argument: int, shape: Sequence[int], dtype: str) -> np.ndarray:
        """The contents of a launch buffer."""
        lo = self.arguments[argument]
        count = int(np.prod(shape)) * np.dtype(DTYPES[dtype]).itemsize
        return np.frombuffer(self.memory[lo : lo + count].tobytes(), DTYPES[dtype]).reshape(shape)

    def check(self, address: int, nbytes: int) -> None:
        inside = any(lo <= address and address + nbytes <= hi for lo, hi in self.ranges)
        assert inside, f"access to {nbytes} bytes at {address} is outside every launch buffer"


@dataclass
class TileMachine:
    hbm: Hbm
    cores: int
    core: int = 0
    values: dict[ir.Value, object] = field(default_factory=dict)
    writers: np.ndarray | None = None  # which core wrote a byte of HBM in this kernel
    executed: int = 0

    def run(self, block: ir.Block) -> None:
        for op in block.operations:
            self.step(op.operation)

    def step(self, op: ir.Operation) -> None:
        operands = [self.values[x] for x in op.operands]
        name = op.name
        if name == "scf.for":
            for i in range(*operands):
                self.values[op.regions[0].blocks[0].arguments[0]] = i
                self.run(op.regions[0].blocks[0])
        elif name == "scf.if":
            if operands[0]:
                self.run(op.regions[0].blocks[0])
        elif name == "npu_tile.kernel":
            self.writers = np.full(self.hbm.memory.size, NOBODY, np.int8)
            for core in range(self.cores):
                self.core = core
                self.run(op.regions[0].blocks[0])
        elif name.startswith("npu_tile.") and name.removeprefix("npu_tile.") in ISA.by_name:
            self.executed += 1
            self.engine(op, operands)
        elif name not in ("scf.yield", "func.return"):
            self.values[op.results[0]] = self.scalar(op, operands)

    def scalar(self, op: ir.Operation, x: list):
        match op.name:
            case "arith.constant":
                return ir.IntegerAttr(op.attributes["value"]).value
            case "arith.addi":
                return x[0] + x[1]
            case "arith.subi":
                return x[0] - x[1]
            case "arith.muli":
                return x[0] * x[1]
            case "arith.floordivsi":
                return x[0] // x[1]
            case "arith.ceildivsi":
                return -(-x[0] // x[1])
            case "arith.remsi":
                return x[0] % x[1]
            case "arith.minsi":
                return min(x)
            case "arith.maxsi":
                return max(x)
            case "arith.cmpi":
                predicate = ir.IntegerAttr(op.attributes["predicate"]).value
                return [x[0] == x[1], x[0] != x[1], x[0] < x[1], x[0] <= x[1], x[0] > x[1], x[0] >= x[1]][
                    predicate
                ]
            case "npu_tile.core":
                return self.core
            case "npu_tile.cores":
                return self.cores
            case "npu_tile.arg":
                return self.hbm.arguments[ir.IntegerAttr(op.attributes["index"]).value]
            case "npu_tile.alloc":
                type_ = ir.MemRefType(op.results[0].type)
                dtype = np.dtype(DTYPES[str(type_.element_type)])
                return np.full(int(np.prod(type_.shape)) * dtype.itemsize, GARBAGE, np.uint8)
            case "npu_tile.load_scalar":
                dtype = DTYPES[ir.StringAttr(op.attributes["dtype"]).value]
                size = np.dtype(dtype).itemsize
                self.hbm.check(x[0], size)
                return int(np.frombuffer(self.hbm.memory[x[0] : x[0] + size].tobytes(), dtype)[0])
        raise AssertionError(f"the tile machine has no {op.name}")

    # ---- engine ops

    def engine(self, op: ir.Operation, operands: list) -> None:
        name = op.name.removeprefix("npu_tile.")
        fields: dict[str, object] = {}
        rest, handles = list(operands), list(op.operands)
        for row in ISA[name].fields:
            if row.on_chip:
                buffer, offset = rest.pop(0), rest.pop(0)
                memref = ir.MemRefType(handles[len(operands) - len(rest) - 2].type)
                fields[row.name] = (buffer, offset, DTYPES[str(memref.element_type)])
                if row.kind == "tile":
                    strides = list(op.attributes[f"{row.name}_strides"])
                    fields[row.name] += (strides,)
            elif row.kind == "value":
                fields[row.name] = rest.pop(0)
            elif not is_derived(ISA[name], row):
                fields[row.name] = op.attributes[row.name].value
        getattr(self, name)(**fields)

    def _blocks(self, n0, n1, n2, bytes, ss0, ss1, ss2, ds0, ds1, ds2):
        if bytes <= 0:
            return
        for i in np.ndindex(*(max(0, n) for n in (n0, n1, n2))):
            yield np.dot(i, (ss0, ss1, ss2)), np.dot(i, (ds0, ds1, ds2))

    def dma_load(self, dst, src, bytes, **fields):
        buffer, offset, _ = dst
        for s, d in self._blocks(bytes=bytes, **fields):
            self._load(buffer, offset + d, src + s, bytes)

    def dma_store(self, dst, src, bytes, **fields):
        buffer, offset, _ = src
        for s, d in self._blocks(bytes=bytes, **fields):
            self._store(dst + d, buffer, offset + s, bytes)

    def dma_gather(
        self, dst, src, index, index_dtype, count, limit, group, group_stride, index_stride,
        rows, row_bytes, row_stride, dst_index_stride, dst_row_stride,
    ):  # fmt: skip
        buffer, offset, _ = dst
        dtype = np.dtype(DTYPES[index_dtype])
        for i in range(count):
            at = index + i * dtype.itemsize
            self.hbm.check(at, dtype.itemsize)
            x = int(np.frombuffer(self.hbm.memory[at : at + dtype.itemsize].tobytes(), dtype)[0])
            assert 0 <= x < limit, f"index {x} is outside 0..{limit}"
            for r in range(rows):
                start = src + x // group * group_stride + x % group * index_stride + r * row_stride
                self._load(buffer, offset + i * dst_index_stride + r * dst_row_stride, start, row_bytes)

    def _load(self, buffer, at, address, nbytes):
        self.hbm.check(address, nbytes)
        assert at >= 0 and at + nbytes <= buffer.nbytes, "DMA outside the buffer"
        buffer[at : at + nbytes] = self.hbm.memory[address : address + nbytes]

    def _store(self, address, buffer, at, nbytes):
        self.hbm.check(address, nbytes)
        assert at >= 0 and at + nbytes <= buffer.nbytes, "DMA outside the buffer"
        owners = self.writers[address : address + nbytes]
        assert ((owners == NOBODY) | (owners == self.core)).all(), "two cores write one byte"
        owners[...] = self.core
        self.hbm.memory[address : address + nbytes] = buffer[at : at + nbytes]

    def _tile(self, tile, *dims) -> np.ndarray:
        buffer, offset, dtype, strides = tile
        dims = [max(0, n) for n in dims]
        if 0 not in dims:
            size = np.dtype(dtype).itemsize
            last = offset + sum((n - 1) * s for n, s in zip(dims, strides, strict=True)) + size
            assert offset >= 0 and last <= buffer.nbytes, "tile outside the buffer"
        typed = np.ndarray(dims, dtype, buffer.data, offset if 0 not in dims else 0, strides)
        return as_strided(typed, dims, strides)

    def v_fill(self, dst, d0, d1, d2, value):
        self._tile(dst, d0, d1, d2)[...] = value

    def v_iota(self, dst, d0, d1, d2, base, step0, step1, step2):
        i0, i1, i2 = np.indices((d0, d1, d2))
        self._tile(dst, d0, d1, d2)[...] = base + i0 * step0 + i1 * step1 + i2 * step2

    def v_unary(self, op, dst, a, d0, d1, d2):
        result = UNARY[op](_wide(self._tile(a, d0, d1, d2)))
        self._tile(dst, d0, d1, d2)[...] = result

    def v_binary(self, op, dst, a, b, d0, d1, d2):
        a, b = (_wide(self._tile(x, d0, d1, d2)) for x in (a, b))
        if a.dtype != b.dtype:
            a, b = a.astype(np.float32), b.astype(np.float32)
        self._tile(dst, d0, d1, d2)[...] = BINARY[op](a, b)

    def v_select(self, dst, cond, a, b, d0, d1, d2):
        cond, a, b = (self._tile(x, d0, d1, d2) for x in (cond, a, b))
        self._tile(dst, d0, d1, d2)[...] = np.where(cond, a, b)

    def v_reduce(self, op, dst, a, d0, d1, d2):
        x = _wide(self._tile(a, d0, d1, d2))
        match op:
            case "sum":
                result = x.sum(-1)
            case "sumsq":
                result = np.square(x).sum(-1)
            case "argmax":
                result = x.argmax(-1)
            case "max" | "min":
                result = getattr(np, op)(x, -1)
        self._tile(dst, d0, d1, 1)[..., 0] = result

    def v_gather(self, dst, a, index, d0, d1, d2, limit):
        picks = self._tile(index, d0, d1, d2)
        assert picks.size == 0 or (picks.min() >= 0 and picks.max() < limit), "index outside the row"
        rows = self._tile(a, d0, d1, limit)
        self._tile(dst, d0, d1, d2)[...] = np.take_along_axis(rows, picks.astype(np.int64), -1)


def _wide(x: np.ndarray) -> np.ndarray:
    """What the vector unit computes in: f32, or int64."""
    return x.astype(np.float32 if x.dtype in (np.float32, ml_dtypes.bfloat16) else np.int64)


def _c_divide(a, b):
    if a.dtype != np.int64:
        return a / b
    return np.where(b == 0, 0, np.trunc(a / np.where(b == 0, 1, b)).astype(np.int64))


ERF = np.vectorize(scalar_erf, otypes=[np.float64])

UNARY = {
    "copy": lambda x: x,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "recip": lambda x: 1 / x,
    "tanh": np.tanh,
    "erf": ERF,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * 0.5 * (1 + ERF(x / np.sqrt(2.0))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "not": lambda x: x == 0,
}

BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _c_divide,
    "max": np.maximum,
    "min": np.minimum,
    "pow": np.power,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def run_module(
    module: ir.Module, signature: Mapping, inputs: Mapping[str, np.ndarray], symbols: Mapping[str, int],
    cores: int, weights: bytes = b"",
) -> tuple[list[np.ndarray], TileMachine]:  # fmt: skip
    """Runs `@main` of a module after convert-npu-to-tile; returns its outputs in order, and the machine."""

    def number(text: int | str) -> int:
        return Sym.of(text).evaluate(symbols)

    buffers, outputs = [], []
    for i, entry in enumerate(signature["args"]):
        match entry["kind"]:
            case "input":
                buffers.append(np.ascontiguousarray(inputs[entry["name"]]))
            case "output":
                shape = [number(n) for n in entry["shape"]]
                outputs.append((i, shape, entry["dtype"]))
                buffers.append(np.zeros(shape, DTYPES[entry["dtype"]]))
            case "symbol":
                buffers.append(int(symbols[entry["name"]]))
            case "workspace":
                buffers.append(np.zeros(number(entry["bytes"]), np.uint8))
            case "weights":
                buffers.append(np.frombuffer(weights, np.uint8))
    hbm = Hbm(buffers)
    machine = TileMachine(hbm, cores)
    (main,) = [op for op in module.body.operations if op.operation.name == "func.func"]
    machine.run(main.regions[0].blocks[0])
    return [hbm.read(*output) for output in outputs], machine
