"""convert-npu-to-tile: tensors become addresses in HBM, ops become kernels of tile operations.

`EMITTERS` is the table of kernels: npu op name → `emit(ctx, op)`. The pass lays out the
launch arguments, walks `@main` in program order and writes the signature
(docs/architecture.md) as JSON in the module attribute `npu_tile.signature`.
"""

import json

from opennpu.compiler.kernels import (
    attention,
    experts,
    grouped_matmul,
    kv,
    matmul,
    movement,
    repeat,
    rope,
    topk_softmax,
    vector,
)
from opennpu.compiler.kernels.context import Emitter, KernelContext
from opennpu.compiler.kernels.values import ArgBase, View, view_type
from opennpu.compiler.kernels.views import row_major
from opennpu.compiler.passes.registry import register_pass
from opennpu.dialects import npu_tile
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import dim, symbol_ranges
from opennpu.runtime.chip import Chip
from torch_mlir import ir
from torch_mlir.dialects import func

EMITTERS: dict[str, Emitter] = {
    **vector.EMITTERS,
    **movement.EMITTERS,
    **attention.EMITTERS,
    **experts.EMITTERS,
    "npu.matmul": matmul.emit_matmul,
    "npu.grouped_matmul": grouped_matmul.emit_grouped_matmul,
    "npu.topk_softmax": topk_softmax.emit_topk_softmax,
    "npu.rope": rope.emit_rope,
    "npu.kv_write": kv.emit_kv_write,
    "npu.rope_kv_write": rope.emit_rope_kv_write,
    "npu.repeat": repeat.emit_repeat,
}


@register_pass("convert-npu-to-tile", "Tensor operations to kernels of tile operations")
def run(module: ir.Module, chip: str | Chip = "npu1-lite") -> None:
    """Rewrites `@main` for a chip: a name of `runtime/chips`, a TOML file, or a Chip."""
    with module.context, ir.Location.unknown():
        npu_tile.load()
        source = _main(module)
        with ir.InsertionPoint(module.body), source.location:
            target = func.FuncOp("tile_main", ([], []))
        with ir.InsertionPoint(target.add_entry_block()), source.location:
            ctx = KernelContext(Chip.load(chip), symbol_ranges(module), EMITTERS)
            outputs = _declare_arguments(ctx, source)
            ctx.lower(source.entry_block)
            _store_outputs(ctx, source, outputs)
            func.ReturnOp([])
        module.operation.attributes["npu_tile.signature"] = ir.StringAttr.get(_signature(ctx, source))
        source.operation.erase()
        target.operation.attributes["sym_name"] = ir.StringAttr.get("main")


def _main(module: ir.Module) -> func.FuncOp:
    for op in module.body.operations:
        if isinstance(op, func.FuncOp) and op.name.value == "main":
            return op
    raise CompileError("the module has no function @main")


def _declare_arguments(ctx: KernelContext, main: func.FuncOp) -> list[View]:
    """Lays out the launch arguments; returns where the outputs go."""
    for i, argument in enumerate(main.arguments):
        attributes = _attributes(main, "arg_attrs", i)
        if "npu.param" in attributes:
            ctx.define_param(argument, [attributes["npu.param"].value])
        else:
            name = attributes["npu.input"].value if "npu.input" in attributes else f"input{i}"
            ctx.define(argument, _buffer(ctx, "input", name, argument, attributes))
    outputs: list[View] = []
    for i, value in enumerate(_returned(main)):
        attributes = _attributes(main, "res_attrs", i)
        name = attributes["npu.output"].value if "npu.output" in attributes else f"output{i}"
        outputs.append(_buffer(ctx, "output", name, value, attributes))
        ctx.aim(value, outputs[-1])
    for symbol in ctx.ranges:
        ctx.arguments.symbol(symbol)
    ctx.arguments.memory("weights")
    ctx.arguments.memory("workspace")
    if kv.describe(main) is not None:
        ctx.arguments.kv()
    ctx.load_arguments()
    return outputs


def _buffer(
    ctx: KernelContext, kind: str, name: str, value: ir.Value, attributes: ir.DictAttr | dict
) -> View:
    """The view of an input or output: row-major unless its attributes give `npu.strides`."""
    shape, dtype = view_type(value)
    strides = None
    if "npu.strides" in attributes:
        strides = tuple(dim(stride.value) for stride in attributes["npu.strides"])
        if len(strides) != len(shape):
            raise CompileError(f"{kind} {name}: {len(strides)} strides for {len(shape)} dimensions")
    base = ArgBase(ctx.arguments.tensor(kind, name, dtype, shape, strides))
    return View(shape, strides or row_major(shape), base=base, dtype=dtype)


def _attributes(main: func.FuncOp, which: str, i: int) -> ir.DictAttr | dict:
    attributes = main.operation.attributes
    return ir.DictAttr(ir.ArrayAttr(attributes[which])[i]) if which in attributes else {}


def _returned(main: func.FuncOp) -> list[ir.Value]:
    return list(list(main.entry_block.operations)[-1].operands)


def _store_outputs(ctx: KernelContext, main: func.FuncOp, outputs: list[View]) -> None:
    """Copies the results that their kernels have not written to their outputs already."""
    end = list(main.entry_block.operations)[-1]
    for value, output in zip(_returned(main), outputs, strict=True):
        if ctx.view(value) != output:
            movement.copy(ctx, end, output, ctx.view(value))


def _signature(ctx: KernelContext, main: func.FuncOp) -> str:
    ctx.arguments.set_bytes("weights", ctx.weights.bytes)
    ctx.arguments.set_bytes("workspace", dim(ctx.workspace.bytes))
    symbols = {name: [lower, -1 if upper is None else upper] for name, (lower, upper) in ctx.ranges.items()}
    signature = {
        "symbols": symbols,
        "args": ctx.arguments.entries,
        "weights": ctx.weights.entries,
        "report": ctx.report,
    }
    if (description := kv.describe(main)) is not None:
        signature["kv"] = description
    return json.dumps(signature)
