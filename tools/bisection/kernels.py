"""One kernel of an `npu_tile` module, with the memory that it finds."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from opennpu.compiler.assembler import assemble
from opennpu.compiler.interpreters.tile_elements import DTYPES
from opennpu.compiler.interpreters.tile_launch import Launch, Memory
from opennpu.compiler.interpreters.tile_memory import CODES
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import stage
from opennpu.compiler.tile_ir import kernel_name, kernels
from opennpu.dialects.locations import describe
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.tools.bisection.levels import FAULTS, HBM_SLACK, Values, level_of, text_of
from torch_mlir import ir

STEPS = {"f32": 2, "bf16": 1}
"""By how many values of a float's dtype the engine may be off the interpreter: the elementary functions of
both are within 1 ulp of the real value in float32. All else is equal."""


@dataclass(frozen=True)
class Alone:
    """A module with one kernel, and the launch arguments at the time it is entered."""

    module: ir.Module
    arguments: list[int | Memory]
    kernel: str


def each(module: ir.Module, values: Values, chip: Chip) -> Iterator[Alone]:
    """Every kernel of a module in program order, with what memory holds before it runs first."""
    values = values.fresh()
    launch = Launch(module, chip, values.inputs, values.params, values.symbols, values.kv)
    machine = launch.machine()
    entered: dict[ir.Operation, list[int | Memory]] = {}

    def keep(kernel: ir.Operation) -> None:
        if kernel not in entered:
            entered[kernel] = copied(launch.arguments)

    machine.entering = keep
    machine.run(module)
    text = text_of(module)
    for number, kernel in enumerate(kernels(module)):
        if kernel in entered:
            alone = _only(text, number, module.context)
            name = f"kernel {kernel_name(kernel)} of {describe(kernel.location) or 'an unknown place'}"
            yield Alone(alone, entered[kernel], name)


def differs(alone: Alone, name: str, chip: Chip) -> bool:
    """Whether the pass changes what the kernel leaves in memory: one that fails after it does.

    Raises FAULTS where the kernel fails before the pass, or the pass refuses it. Changes the module.
    """
    before = run(alone.module, alone.arguments, chip)
    with alone.module.context, ir.Location.unknown():
        run_pipeline(alone.module, [stage(name, chip)])
    try:
        after = run(alone.module, alone.arguments, chip)
    except FAULTS:
        return True
    steps = STEPS if level_of(alone.module) == "npu_isa" else {}
    return not all(same(a, b, steps) for a, b in zip(before, after, strict=True))


@dataclass(frozen=True)
class Left:
    """What a run leaves in a launch buffer, and, of the interpreter, the dtype of each byte (CODES)."""

    bytes: np.ndarray
    codes: np.ndarray | None = None


def run(module: ir.Module, arguments: list[int | Memory], chip: Chip) -> list[Left]:
    """The memory that may be written, after a run on copies of the arguments."""
    launch = Bare(chip, copied(arguments))
    if level_of(module) == "npu_isa":
        with module.context, ir.Location.unknown():
            image = assemble(module, chip)
        held = sum(a.bytes.nbytes for a in arguments if isinstance(a, Memory))
        launch.execute(Device(chip, engine="reference", hbm_bytes=2 * held + HBM_SLACK), image)
        return [Left(a.bytes) for a in launch.arguments if isinstance(a, Memory) and a.writable]
    machine = launch.machine()
    with module.context:
        machine.run(module)
    return [Left(b.memory, b.codes) for b in machine.hbm.buffers if b.codes is not None]


def same(before: Left, after: Left, steps: Mapping[str, int]) -> bool:
    """Whether all is equal but floats within `steps`; what was written of which dtype is that of `before`."""
    wrong = before.bytes != after.bytes
    for dtype, most in steps.items():
        words, others, codes = (_words(x, dtype) for x in (before.bytes, after.bytes, before.codes))
        floats = (codes == _words(np.full(codes.itemsize, CODES[dtype], np.uint8), dtype)).nonzero()[0]
        near = np.abs(_ordered(words[floats]) - _ordered(others[floats])) <= most
        wrong[: words.nbytes].reshape(-1, words.itemsize)[floats[near]] = False
    return not wrong.any()


def _words(x: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes as unsigned numbers of a dtype's size; a rest at the end is left out."""
    size = DTYPES[dtype].itemsize
    return x[: len(x) // size * size].view(f"u{size}")


def _ordered(words: np.ndarray) -> np.ndarray:
    """Numbers that count the values of a float from 0 on, up and down, from its bits; all NaN are one."""
    sign = 1 << (8 * words.itemsize - 1)
    size = (words & (sign - 1)).astype(np.int64)
    infinity = {2: 0x7F80, 4: 0x7F800000}[words.itemsize]
    return np.where(size > infinity, 2 * sign, np.where(words & sign, -size, size))


class Bare(Launch):
    """A launch of which only the arguments are known."""

    def __init__(self, chip: Chip, arguments: list[int | Memory]):
        self.chip, self.arguments = chip, arguments


def copied(arguments: list[int | Memory]) -> list[int | Memory]:
    return [
        replace(a, bytes=a.bytes.copy()) if isinstance(a, Memory) and a.writable else a for a in arguments
    ]


def _only(text: str, number: int, context: ir.Context) -> ir.Module:
    """The module with one kernel; what it is in stays. The report is cut to its entry."""
    with context:
        module = ir.Module.parse(text)
        for i, kernel in enumerate(kernels(module)):
            if i != number:
                kernel.erase()
        attributes = module.operation.attributes
        signature = json.loads(ir.StringAttr(attributes["npu_tile.signature"]).value)
        signature["report"] = [signature["report"][number]]
        attributes["npu_tile.signature"] = ir.StringAttr.get(json.dumps(signature))
    return module
