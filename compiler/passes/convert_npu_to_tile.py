"""convert-npu-to-tile: tensors become addresses in HBM, ops become kernels of tile operations.

`EMITTERS` is the table of kernels: npu op name → `emit(ctx, op)`. The pass lays out the
launch arguments, walks `@main` in program order and writes the signature
(docs/architecture.md) as JSON in the module attribute `npu_tile.signature`.
"""

import json

from opennpu.compiler.kernels import (
    attention,
    capture,
    cumsum,
    experts,
    grouped_matmul,
    kv,
    matmul,
    movement,
    put_rows,
    repeat,
    rope,
    topk_softmax,
    vector,
    views,
)
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.kernels.context import Emitter, KernelContext
from opennpu.compiler.kernels.values import ArgBase, View, view_type
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import attr, definition, users
from opennpu.dialects import npu_tile
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.symbols import Ranges, Sym, dim, symbol_ranges
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
    "npu.cumsum": cumsum.emit_cumsum,
    "npu.put_rows": put_rows.emit_put_rows,
    "npu.rope": rope.emit_rope,
    "npu.kv_write": kv.emit_kv_write,
    "npu.rope_kv_write": rope.emit_rope_kv_write,
    "npu.repeat": repeat.emit_repeat,
    "npu.capture": capture.emit_capture,
}


@register_pass("convert-npu-to-tile", "Tensor operations to kernels of tile operations")
def run(module: ir.Module, chip: str | Chip = "npu1-lite", choices: Choices | None = None) -> None:
    """Rewrites `@main` for a chip: a name of `runtime/chips`, a TOML file, or a Chip."""
    with module.context, ir.Location.unknown():
        npu_tile.load()
        source = _main(module)
        with ir.InsertionPoint(module.body), source.location:
            target = func.FuncOp("tile_main", ([], []))
        with ir.InsertionPoint(target.add_entry_block()), source.location:
            ctx = KernelContext(Chip.load(chip), _ranges(module, source), EMITTERS, choices)
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


def _ranges(module: ir.Module, main: func.FuncOp) -> Ranges:
    """Those of the symbols, but of those that only pages measure."""
    measured: dict[bool, set[str]] = {True: set(), False: set()}
    for i, argument in enumerate(main.arguments):
        attributes = _attributes(main, "arg_attrs", i)
        extents = list(view_type(argument)[0])
        if "npu.strides" in attributes:
            extents += [stride.value for stride in attributes["npu.strides"]]
        measured[kv.PAGES in attributes] |= {name for extent in extents for name in Sym.of(extent).names}
    hidden = measured[True] - measured[False]
    return {name: bounds for name, bounds in symbol_ranges(module).items() if name not in hidden}


def _declare_arguments(ctx: KernelContext, main: func.FuncOp) -> list[View]:
    """Lays out the launch arguments; returns where the outputs go."""
    for i, argument in enumerate(main.arguments):
        attributes = _attributes(main, "arg_attrs", i)
        if "npu.param" in attributes:
            ctx.define_param(argument, [attributes["npu.param"].value])
        elif kv.PAGES not in attributes:
            name = attributes["npu.input"].value if "npu.input" in attributes else f"input{i}"
            ctx.define(argument, _buffer(ctx, "input", name, argument, attributes))
    outputs: list[View] = []
    for i, value in enumerate(_returned(main)):
        attributes = _attributes(main, "res_attrs", i)
        name = attributes["npu.output"].value if "npu.output" in attributes else f"output{i}"
        outputs.append(_buffer(ctx, "output", name, value, attributes))
        _aim(ctx, value, outputs[-1])
    capture.declare_outputs(ctx, main)
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
    return View(shape, strides or views.row_major(shape), base=base, dtype=dtype)


def _aim(ctx: KernelContext, value: ir.Value, target: View) -> None:
    """Makes the kernel of a result write to `target`, also where it writes the result seen otherwise."""
    ctx.aim(value, target)
    look = definition(value, "npu.reshape", "npu.transpose")
    if look is None or len(users(look.operands[0])) > 1:
        return
    if look.name == "npu.reshape":
        through = views.reshape(target, view_type(look.operands[0])[0])
    else:
        perm = attr(look, "perm")
        through = views.transpose(target, [perm.index(d) for d in range(len(perm))])
    if through is not None:
        _aim(ctx, look.operands[0], through)


def _attributes(main: func.FuncOp, which: str, i: int) -> ir.DictAttr | dict:
    attributes = main.operation.attributes
    return ir.DictAttr(ir.ArrayAttr(attributes[which])[i]) if which in attributes else {}


def _returned(main: func.FuncOp) -> list[ir.Value]:
    return list(list(main.entry_block.operations)[-1].operands)


def _store_outputs(ctx: KernelContext, main: func.FuncOp, outputs: list[View]) -> None:
    """Copies the results that their kernels have not written to their outputs already."""
    end = list(main.entry_block.operations)[-1]
    for value, output in zip(_returned(main), outputs, strict=True):
        if not _is(ctx.view(value), output):
            movement.copy(ctx, end, output, ctx.view(value))


def _is(view: View, output: View) -> bool:
    """The same elements; the stride of a dimension of one element does not matter."""
    strides = zip(view.shape, view.strides, output.strides, strict=True)
    return (view.base, view.offset) == (output.base, output.offset) and all(
        a == b for extent, a, b in strides if extent != 1
    )


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
