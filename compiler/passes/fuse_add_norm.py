"""npu-fuse-add-norm: a residual sum and the norm of it become one op with two results."""

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import attr, before, definition, dominates, ops_named, replace
from opennpu.dialects.npu import build
from torch_mlir import ir


@register_pass("npu-fuse-add-norm", "add + rms_norm of the sum → add_rms_norm")
def run(module: ir.Module) -> None:
    """Rewrites every rms_norm of a sum.

    Also where nothing else needs the sum, so that the last norm of a model is like the ones
    in its layers.
    """
    for norm in ops_named(module, "npu.rms_norm"):
        total, w = norm.operands
        add = definition(total, "npu.binary")
        if add and _is_residual_add(add, norm) and dominates(w, add):
            _fuse(add, norm)


def _is_residual_add(add: ir.Operation, norm: ir.Operation) -> bool:
    """A sum of two tensors of one type, in the norm's block."""
    total = add.results[0]
    return (
        attr(add, "op") == "add"
        and all(operand.type == total.type for operand in add.operands)
        and add.block == norm.block
    )


def _fuse(add: ir.Operation, norm: ir.Operation) -> None:
    with before(add, add, norm):
        y, total = build.add_rms_norm(*add.operands, norm.operands[1], attr(norm, "eps"))
    replace(norm, [y])
    replace(add, [total])
