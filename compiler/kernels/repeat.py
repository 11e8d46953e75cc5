"""`npu.repeat`: one loop over layers around the kernels of one layer.

Every carried value has one slot for all layers. The op that yields it writes there at once
where nothing reads the old value any more, else a copy at the end of the body does.
"""

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.values import View, view_type
from opennpu.dialects import npu
from torch_mlir import ir

VIEW_OPS = frozenset({"npu.reshape", "npu.transpose", "npu.slice", "npu.broadcast"})
"""Ops whose result may share its operand's memory."""


def emit_repeat(ctx: KernelContext, op: ir.OpView) -> None:
    body = op.regions[0].blocks[0]
    carried = list(body.arguments)[1 : 1 + len(op.inits)]
    params = list(body.arguments)[1 + len(op.inits) :]
    captured = npu.captured(op)
    slots = [ctx.reserve(*view_type(init)) for init in op.inits]
    for value in captured:
        ctx.retain(value)
    for init, slot in zip(op.inits, slots, strict=True):
        movement.copy(ctx, op, slot, ctx.view(init))
    outer = ctx.layer, ctx.repeats
    ctx.repeats *= op.count.value
    with ctx.builder.loop(0, op.count.value) as layer:
        ctx.layer = layer
        for argument, slot in zip(carried, slots, strict=True):
            ctx.define(argument, slot)
        for argument, names in zip(params, op.params, strict=True):
            ctx.define_param(argument, [ir.StringAttr(name).value for name in names], layer)
        emit_body(ctx, body, carried, slots)
    ctx.layer, ctx.repeats = outer
    for value in captured:
        ctx.release(value)
    for result, slot in zip(op.results, slots, strict=True):
        ctx.define(result, slot)
        ctx.free(slot)


def emit_body(ctx: KernelContext, body: ir.Block, carried: list[ir.Value], slots: list[View]) -> None:
    """One layer; afterwards the slots hold the yielded values."""
    terminator = list(body.operations)[-1]
    yielded = list(terminator.operands)
    for value, argument, slot in zip(yielded, carried, slots, strict=True):
        if yielded.count(value) == 1 and _is_dead_before(argument, value, body):
            ctx.aim(value, slot)
    ctx.lower(body)
    moves = [(slot, ctx.view(v)) for v, slot in zip(yielded, slots, strict=True) if ctx.view(v) != slot]
    bases = {slot.base for slot in slots}
    # A value that lies in a carried slot could be overwritten by another move: stage it first.
    staged = [(slot, _stage(ctx, terminator, v) if v.base in bases else v) for slot, v in moves]
    for slot, view in staged:
        movement.copy(ctx, terminator, slot, view)
    ctx.finish(terminator)


def _stage(ctx: KernelContext, op: ir.OpView, view: View) -> View:
    copy = ctx.scratch(view.shape, view.dtype)
    movement.copy(ctx, op, copy, view)
    return copy


def _is_dead_before(argument: ir.Value, value: ir.Value, body: ir.Block) -> bool:
    """Whether the last use of `argument`, or of a view of it, stands before the op that makes `value`."""
    order = {op.operation: i for i, op in enumerate(body.operations)}
    made = -1 if isinstance(value.owner, ir.Block) else order.get(value.owner.operation, -1)
    pending, last = [argument], -1
    while pending:
        for use in pending.pop().uses:
            user = use.owner.operation
            while user not in order:
                user = user.parent
            last = max(last, order[user])
            if user.name in VIEW_OPS:
                pending.extend(user.results)
    return last < made
