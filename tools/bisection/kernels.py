"""One kernel of an `npu_tile` module, with the memory that it finds."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from opennpu.compiler.assembler import assemble
from opennpu.compiler.interpreters.tile_launch import Launch, Memory
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import stage
from opennpu.compiler.tile_ir import kernel_name, kernels
from opennpu.dialects.locations import describe
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.tools.bisection.levels import FAULTS, HBM_SLACK, Values, level_of, text_of
from torch_mlir import ir

UNITS = 1
"""Steps of the last place that a word may differ by on the engine: its elementary functions are within 1 ulp
of the real value, as the interpreter's are. A word is a bf16, or the low half of an f32."""


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
    units = UNITS if level_of(alone.module) == "npu_isa" else 0
    return any(_distance(a, b) > units for a, b in zip(before, after, strict=True))


def run(module: ir.Module, arguments: list[int | Memory], chip: Chip) -> list[np.ndarray]:
    """The memory that may be written, after a run on copies of the arguments."""
    launch = Bare(chip, copied(arguments))
    if level_of(module) == "npu_isa":
        with module.context, ir.Location.unknown():
            image = assemble(module, chip)
        held = sum(a.bytes.nbytes for a in arguments if isinstance(a, Memory))
        launch.execute(Device(chip, engine="reference", hbm_bytes=2 * held + HBM_SLACK), image)
    else:
        with module.context:
            launch.machine().run(module)
    return [a.bytes for a in launch.arguments if isinstance(a, Memory) and a.writable]


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


def _distance(a: np.ndarray, b: np.ndarray) -> int:
    """The largest distance of two 16-bit words."""
    even = len(a) // 2 * 2
    words = (x[:even].view(np.uint16).astype(np.int64) for x in (a, b))
    off = np.abs(np.subtract(*words))
    tail = int(not np.array_equal(a[even:], b[even:]))
    return max(int(np.minimum(off, 65536 - off).max(initial=0)), 2 * UNITS * tail)
