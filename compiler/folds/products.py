"""Folds into matrix products."""

from opennpu.compiler.folds.table import folds
from opennpu.compiler.rewriting import attr, definition, fused_location, only_user
from opennpu.dialects import npu


def rebuilt(op, w=None, transpose_w=None, element=None):
    """The product with another w, or another dtype of the result."""
    x, own_w, *extra = op.operands
    return npu.matmul(
        x,
        own_w if w is None else w,
        attr(op, "transpose_w") if transpose_w is None else transpose_w,
        attr(op, "epilogue"),
        extra,
        npu.dtype(op.results[0]) if element is None else element,
    )


@folds("cast")
def cast_of_product(op):
    """The accumulator is f32: a product that is only cast to f32 gives it at once, not rounded before."""
    product = definition(op.operands[0], "npu.matmul")
    if product is None or npu.dtype(op.results[0]) != "f32" or only_user(product.results[0]) is None:
        return None
    with fused_location((product, op)):
        return rebuilt(product, element="f32")


@folds("matmul")
def transposed_weight(op):
    """A w whose last two dimensions are swapped before is read the other way round."""
    swap = definition(op.operands[1], "npu.transpose")
    if swap is None or any(step.startswith("gate_") for step in attr(op, "epilogue")):
        return None
    perm = attr(swap, "perm")
    rank = len(perm)
    if perm != [*range(rank - 2), rank - 1, rank - 2]:
        return None
    return rebuilt(op, w=swap.operands[0], transpose_w=not attr(op, "transpose_w"))
