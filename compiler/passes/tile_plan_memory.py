"""npu-tile-plan-memory: gives every buffer of a kernel its address in scratchpad or accumulator.

Kernels follow one another behind barriers, so each has the whole memory. Within a kernel no
two buffers share bytes: all of its loops' buffers live at once in the software pipeline.

The signature's report learns what each kernel uses: `spm`, `acc` in bytes.
"""

import json

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.tile_ir import (
    Buffer,
    allocs,
    buffer_of,
    integer_attr,
    kernel_name,
    kernels,
)
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.runtime.chip import Chip
from torch_mlir import ir


@register_pass("npu-tile-plan-memory", "lay out the buffers of every kernel")
def plan_memory(module: ir.Module, chip: str | Chip = "npu1-lite") -> None:
    chip = Chip.load(chip)
    sizes = {"spm": chip.spm_bytes, "acc": chip.acc_bytes}
    problems = []
    usage = []
    for kernel in kernels(module):
        used = dict.fromkeys(sizes, 0)
        for buffer in map(buffer_of, allocs(kernel)):
            buffer.op.attributes["address"] = integer_attr(used[buffer.space])
            used[buffer.space] += buffer.bytes
        usage.append(used)
        problems += [_overflow(kernel, s, used[s], chip, sizes[s]) for s in sizes if used[s] > sizes[s]]
    if problems:
        raise CompileError(*problems)
    _record(module, usage)


def _record(module: ir.Module, usage: list[dict[str, int]]) -> None:
    """The report has an entry for every kernel, in program order."""
    attributes = module.operation.attributes
    if "npu_tile.signature" not in attributes:
        return
    signature = json.loads(ir.StringAttr(attributes["npu_tile.signature"]).value)
    for entry, used in zip(signature["report"], usage, strict=True):
        entry.update(used)
    attributes["npu_tile.signature"] = ir.StringAttr.get(json.dumps(signature))


def _overflow(kernel: ir.Operation, space: str, used: int, chip: Chip, size: int) -> Problem:
    source = ir.StringAttr(kernel.attributes["source"]).value
    lines = [f"      {_row(b)}" for b in map(buffer_of, allocs(kernel)) if b.space == space]
    return Problem(
        f"kernel {kernel_name(kernel)} of {source} needs {used} bytes of {space}, {chip.name} has {size}:\n"
        + "\n".join(lines),
        describe(kernel.location),
        f"choose smaller tiles for this kernel, or a chip with more memory.{space}_kib",
    )


def _row(buffer: Buffer) -> str:
    copies = f" × {buffer.slots} slots" if buffer.slots > 1 else ""
    return f"{buffer.bytes:>10} bytes  {buffer.op.results[0].type}{copies}"
