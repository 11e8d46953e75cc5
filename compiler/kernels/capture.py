"""`npu.capture`: copies a value to a row of an output that exists for this alone."""

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.values import RowBase, View, view_type
from opennpu.compiler.rewriting import attr
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from torch_mlir import ir


def declare_outputs(ctx: KernelContext, main: ir.OpView) -> None:
    """An output [rows, …] for each name that ops of @main capture to. CompileError where types differ."""
    rows: dict[str, int] = {}
    values: dict[str, ir.Value] = {}

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name == "npu.capture":
            name, x = attr(op, "output"), op.operands[0]
            first = values.setdefault(name, x)
            if view_type(first) != view_type(x):
                what = f"two captures to '{name}' differ in type: {first.type} and {x.type}"
                raise CompileError(Problem(what, describe(op.location), "capture them to two outputs"))
            inside = op.parent.name == "npu.repeat"
            count = attr(op.parent, "count") if inside else 1
            rows[name] = max(rows.get(name, 0), attr(op, "layer") + count)
        return ir.WalkResult.ADVANCE

    main.operation.walk(visit)
    for name, x in values.items():
        shape, dtype = view_type(x)
        ctx.arguments.tensor("output", name, dtype, [rows[name], *shape])


def emit_capture(ctx: KernelContext, op: ir.OpView) -> None:
    x = ctx.view(op.x)
    row = RowBase(f"output:{op.output.value}", x.bytes, ctx.layer + op.layer.value)
    movement.copy(ctx, op, View.contiguous(row, x.shape, x.dtype), x)
