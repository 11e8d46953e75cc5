"""npu-canonicalize: simpler ops that compute the same.

Every op is looked up in the table of folds (`compiler/folds`), in order, until no fold
finds anything more; then MLIR's own passes remove what is dead and what is there twice.
"""

from opennpu.compiler.folds import FOLDS
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import before, blocks, is_dead, replace
from torch_mlir import ir
from torch_mlir.passmanager import PassManager

CLEAN_UP = "builtin.module(canonicalize,cse)"


@register_pass("npu-canonicalize", "folds ops of no effect, composes views, removes dead and repeated ops")
def run(module: ir.Module) -> None:
    """Folds to a fixed point."""
    for block in blocks(module):
        while _fold_once(block):
            pass
    PassManager.parse(CLEAN_UP).run(module.operation)


def _fold_once(block: ir.Block) -> bool:
    """One walk over the block; whether anything changed."""
    changed = False
    for view in list(block.operations):
        op = view.operation
        if is_dead(op):
            continue
        for fold in FOLDS.get(op.name, ()):
            with before(op):
                simpler = fold(op)
            if simpler is not None:
                replace(op, [simpler])
                changed = True
                break
    return changed
