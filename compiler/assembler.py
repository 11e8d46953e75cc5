"""npu_isa to the program image: a walk over the operations, one instruction each."""

import json

from opennpu.compiler.image import ArgKind, build_image
from opennpu.dialects import npu_isa
from opennpu.dialects.isa.encoding import Instruction, encode
from opennpu.dialects.locations import describe
from opennpu.runtime.chip import Chip
from opennpu.runtime.signature import KV_BUFFERS
from torch_mlir import ir

_ARG_KINDS = {
    "input": ArgKind.READ,
    "weights": ArgKind.READ,
    "output": ArgKind.WRITE,
    "workspace": ArgKind.WRITE,
    "symbol": ArgKind.SCALAR,
}


def assemble(module: ir.Module, chip: Chip) -> bytes:
    """The image of a module with an `npu_isa.program` and the attribute `npu_tile.signature`."""
    instructions, locs = program_of(module)
    return build_image(chip, arg_kinds(signature_of(module)["args"]), encode(instructions), locs)


def program_of(module: ir.Module) -> tuple[list[Instruction], list[str]]:
    """The instructions of a module and the texts that their locations index, each once."""
    program = next(op for op in module.body.operations if op.operation.name == "npu_isa.program")
    locs: dict[str, int] = {}
    texts: dict[ir.Location, int] = {}
    instructions = []
    for op in program.operation.regions[0].blocks[0].operations:
        location = op.location
        if location not in texts:
            texts[location] = locs.setdefault(describe(location), len(locs))
        instructions.append(npu_isa.instruction_of(op, texts[location]))
    return instructions, list(locs)


def arg_kinds(args: list[dict]) -> list[ArgKind]:
    """What each launch argument of a signature is to the loader."""
    return [_kv_kind(arg) if arg["kind"] == "kv" else _ARG_KINDS[arg["kind"]] for arg in args]


def _kv_kind(arg: dict) -> ArgKind:
    return ArgKind.WRITE if arg["field"] in KV_BUFFERS else ArgKind.SCALAR


def signature_of(module: ir.Module) -> dict:
    """What convert-npu-to-tile recorded: symbols, args, kv, weights, report."""
    return json.loads(ir.StringAttr(module.operation.attributes["npu_tile.signature"]).value)
