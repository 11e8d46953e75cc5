"""Runs an `npu_tile` module in numpy: what the passes on it and the lowering to `npu_isa` must keep.

Plain and sequential: a kernel runs on one core after the other, engine ops act at once and in
program order. It knows nothing of time. Two things that time could change are checked: a wait
finds its set before it in program order, and no flag is left over. Works after every pass of the
level: a buffer without an address is memory of its own, filled with garbage; one that was planned
lies at its address in the core's memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from opennpu.compiler.interpreters.tile_engines import ENGINES, Core
from opennpu.compiler.interpreters.tile_memory import GARBAGE, Hbm, Operand, TileFault
from opennpu.compiler.rewriting import functions
from opennpu.compiler.tile_ir import buffer_of, integer
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.locations import describe
from opennpu.dialects.npu_tile.effects import is_derived, spec_of
from opennpu.dialects.npu_tile.types import dtype_of
from opennpu.runtime.chip import Chip
from torch_mlir import ir


@dataclass
class Machine:
    """A chip in the middle of a launch. `arguments` are what `npu_tile.arg` gives."""

    chip: Chip
    hbm: Hbm
    arguments: list[int]
    entering: Callable[[ir.Operation], None] = lambda kernel: None  # told each kernel before it runs
    executed: int = 0  # engine ops
    cores: list[Core] = field(default_factory=list)
    values: dict[ir.Value, object] = field(default_factory=dict)
    decoded: dict[ir.Operation, "Decoded"] = field(default_factory=dict)

    def __post_init__(self):
        sizes = {"spm": self.chip.spm_bytes, "acc": self.chip.acc_bytes}
        for number in range(self.chip.cores):
            memories = {space: np.full(size, GARBAGE, np.uint8) for space, size in sizes.items()}
            self.cores.append(Core(number, self.chip, self.hbm, memories))

    def run(self, module: ir.Module) -> None:
        """Runs `@main`. Raises TileFault, which names the op."""
        self._block(next(functions(module)).regions[0].blocks[0], self.cores[0])
        for core in self.cores:
            if any(core.flags.values()):
                raise TileFault(f"core {core.number} ends with flags that are set: {core.flags}")

    def _block(self, block: ir.Block, core: Core) -> None:
        for op in block.operations:
            op = op.operation
            if op.name in REGIONS:
                REGIONS[op.name](self, op, core)
                continue
            try:
                self._step(op, core)
            except TileFault as fault:
                place = f"{op.name} of {describe(op.location) or 'an unknown place'}, core {core.number}"
                raise TileFault(f"{place}: {fault}") from None

    def _step(self, op: ir.Operation, core: Core) -> None:
        name = op.name
        if (spec := spec_of(op)) is not None:
            self._engine(op, spec.name, core)
        elif name in SCALARS:
            self.values[op.results[0]] = SCALARS[name](*(self.values[x] for x in op.operands))
        elif name in LEAVES:
            result = LEAVES[name](self, op, core)
            self.values.update((value, result) for value in op.results)
        elif name not in ("scf.yield", "func.return"):
            raise TileFault("the interpreter has no such op")

    def _engine(self, op: ir.Operation, name: str, core: Core) -> None:
        if op not in self.decoded:
            self.decoded[op] = Decoded.of(op)
        static, numbers, operands = self.decoded[op].fields
        fields = dict(static)
        for field_name, value in numbers:
            fields[field_name] = self.values[value]
        for field_name, buffer, offset, dtype, strides in operands:
            fields[field_name] = Operand(self.values[buffer], self.values[offset], dtype, strides)
        self.execute(core, name, fields)

    def execute(self, core: Core, name: str, fields: Mapping[str, object]) -> None:
        """One engine instruction on a core; `fields` as `ENGINES` takes them."""
        self.executed += 1
        with np.errstate(all="ignore"):
            ENGINES[name](core, **fields)


@dataclass(frozen=True)
class Decoded:
    """The fields of an engine op: (attributes, (name, value) of numbers, and of what lies on the chip)."""

    fields: tuple[dict, list, list]

    @staticmethod
    def of(op: ir.Operation) -> "Decoded":
        spec = spec_of(op)
        static, numbers, operands = {}, [], []
        given = iter(op.operands)
        for f in spec.fields:
            if f.on_chip:
                buffer, offset = next(given), next(given)
                strides = tuple(op.attributes[f"{f.name}_strides"]) if f.kind == "tile" else (0, 0, 0)
                operands.append((f.name, buffer, offset, dtype_of(buffer.type), strides))
            elif f.kind == "value":
                numbers.append((f.name, next(given)))
            elif not is_derived(spec, f):
                static[f.name] = op.attributes[f.name].value
        return Decoded((static, numbers, operands))


# ---- ops with a region


def _kernel(machine: Machine, op: ir.Operation, _: Core) -> None:
    machine.entering(op)
    machine.hbm.begin_kernel()
    for core in machine.cores:
        machine._block(op.regions[0].blocks[0], core)


def _for(machine: Machine, op: ir.Operation, core: Core) -> None:
    low, high, step = (machine.values[x] for x in op.operands)
    if step < 1:
        raise TileFault(f"a loop with the step {step}")
    body = op.regions[0].blocks[0]
    for i in range(low, high, step):
        machine.values[body.arguments[0]] = i
        machine._block(body, core)


def _if(machine: Machine, op: ir.Operation, core: Core) -> None:
    if machine.values[op.operands[0]]:
        machine._block(op.regions[0].blocks[0], core)


REGIONS: dict[str, Callable] = {"npu_tile.kernel": _kernel, "scf.for": _for, "scf.if": _if}


# ---- the sequencer


def _set_flag(machine: Machine, op: ir.Operation, core: Core) -> None:
    flag = machine.values[op.operands[0]]
    if not 0 <= flag < ISA.flags:
        raise TileFault(f"flag {flag} of {ISA.flags}")
    core.flags[flag] = core.flags.get(flag, 0) + 1


def _wait_flag(machine: Machine, op: ir.Operation, core: Core) -> None:
    flag = machine.values[op.operands[0]]
    if not core.flags.get(flag, 0):
        raise TileFault(f"waits for flag {flag}, which nothing before it has set")
    core.flags[flag] -= 1


def _alloc(machine: Machine, op: ir.Operation, core: Core) -> np.ndarray:
    buffer, address = buffer_of(op), integer(op, "address", None)
    if address is None:
        return np.full(buffer.bytes, GARBAGE, np.uint8)
    memory = core.memories[buffer.space]
    if address + buffer.bytes > memory.nbytes:
        raise TileFault(f"a buffer of {buffer.bytes} bytes at {address} of {memory.nbytes} of {buffer.space}")
    return memory[address : address + buffer.bytes]


def _load_scalar(machine: Machine, op: ir.Operation, core: Core) -> int:
    dtype = ir.StringAttr(op.attributes["dtype"]).value
    return int(core.hbm.integers(machine.values[op.operands[0]], 1, dtype)[0])


def _slot(machine: Machine, op: ir.Operation, core: Core) -> int:
    return machine.values[op.operands[0]] % integer(op, "slots", 1)


def _constant(machine: Machine, op: ir.Operation, core: Core) -> int:
    value = ir.IntegerAttr(op.attributes["value"])
    return value.value & 1 if ir.IntegerType(value.type).width == 1 else value.value


def _compare(machine: Machine, op: ir.Operation, core: Core) -> int:
    a, b = (machine.values[x] for x in op.operands)
    signed = (a == b, a != b, a < b, a <= b, a > b, a >= b)  # in the order of MLIR's predicates
    return int(signed[ir.IntegerAttr(op.attributes["predicate"]).value])


LEAVES: dict[str, Callable] = {
    "arith.constant": _constant,
    "arith.cmpi": _compare,
    "npu_tile.core": lambda machine, op, core: core.number,
    "npu_tile.cores": lambda machine, op, core: machine.chip.cores,
    "npu_tile.arg": lambda machine, op, core: machine.arguments[integer(op, "index", None)],
    "npu_tile.alloc": _alloc,
    "npu_tile.load_scalar": _load_scalar,
    "npu_tile.slot": _slot,
    "npu_tile.set_flag": _set_flag,
    "npu_tile.wait_flag": _wait_flag,
}


def _wrapped(function: Callable[..., int]) -> Callable[..., int]:
    """On 64 bits, two's complement."""
    return lambda *x: (function(*x) + (1 << 63)) % (1 << 64) - (1 << 63)


def _divisor(b: int) -> int:
    if b == 0:
        raise TileFault("a division by 0")
    return b


def _remainder(a: int, b: int) -> int:
    """MLIR's: with the sign of a."""
    rest = abs(a) % abs(_divisor(b))
    return -rest if a < 0 else rest


SCALARS: dict[str, Callable[..., int]] = {
    "arith.addi": _wrapped(lambda a, b: a + b),
    "arith.subi": _wrapped(lambda a, b: a - b),
    "arith.muli": _wrapped(lambda a, b: a * b),
    "arith.shli": _wrapped(lambda a, b: a << (b & 63)),
    "arith.shrsi": lambda a, b: a >> (b & 63),
    "arith.floordivsi": lambda a, b: a // _divisor(b),
    "arith.ceildivsi": lambda a, b: -(-a // _divisor(b)),
    "arith.remsi": _remainder,
    "arith.minsi": min,
    "arith.maxsi": max,
    "arith.andi": lambda a, b: a & b,
    "arith.ori": lambda a, b: a | b,
    "arith.xori": lambda a, b: a ^ b,
    "arith.extui": lambda a: a,
    "arith.select": lambda condition, a, b: a if condition else b,
}
"""Sequencer arithmetic; an i1 is 0 or 1."""
