"""`npu.topk_softmax`: softmax over all experts, then k rounds of the greatest one left."""

from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.tiling import core_rows, row_block, upper_bound
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import dim
from torch_mlir import ir

GONE = -1.0
"""Less than any probability: of what has been picked already."""


def emit_topk_softmax(ctx: KernelContext, op: ir.OpView) -> None:
    """logits[T,E] → weights[T,k], ids[T,k]; every core takes blocks of tokens."""
    logits, weights, ids = ctx.view(op.logits), ctx.output(op.weights), ctx.output(op.ids)
    (tokens, experts), k, chip = logits.shape, op.k.value, ctx.chip
    most = upper_bound(experts, ctx.ranges)
    row_bytes = (most or 0) * (logits.itemsize + 4 + 1) + k * 8 + 4  # of the tiles below
    if most is None or row_bytes + 4 * most > chip.spm_bytes // 2:
        what = f"'{op.operation.name}': a row of {experts} elements does not fit in scratchpad"
        remedy = "give the symbol a lower upper bound, or choose a chip with more scratchpad"
        raise CompileError(Problem(what, describe(op.location), remedy))
    block = row_block(chip, row_bytes + 4 * most)
    flops, nbytes = dim(tokens * experts * (3 + 4 * k)), dim(logits.bytes + weights.bytes + ids.bytes)
    with (
        ctx.kernel(op, "topk_softmax", flops, nbytes) as b,
        core_rows(b, chip, b.sym(tokens), block) as (start, rows),
    ):
        row = (rows, b.sym(experts))
        x, p, picked = (b.alloc((block, most), dtype) for dtype in (logits.dtype, "f32", "bool"))
        scalar, gone, numbers = b.alloc((block, 1), "f32"), b.alloc((1,), "f32"), b.alloc((most,), "i32")
        each = scalar.broadcast(-1)
        b.load(x, logits, (start, 0), row)
        b.reduce("max", scalar, x, row)
        b.binary("sub", p, x, each, row)
        b.unary("exp", p, p, row)
        b.reduce("sum", scalar, p, row)
        b.binary("div", p, p, each, row)
        b.fill(gone, GONE, (1,))
        b.iota(numbers, row[1:], 0, (1,))
        best, picks = b.alloc((block, k), "f32"), b.alloc((block, k), "i32")
        with b.loop(0, k) as i:
            b.reduce("max", best.at(i), p, row)
            b.reduce("argmax", picks.at(i), p, row)
            b.binary("eq", picked, numbers, picks.at(i).broadcast(-1), row)
            b.select(p, picked, gone.broadcast(-1), p, row)
        if op.renormalize.value:
            b.reduce("sum", scalar, best, (rows, k))
            b.binary("div", best, best, each, (rows, k))
        b.store(weights, (start, 0), best, (rows, k))
        b.store(ids, (start, 0), picks, (rows, k))
