"""Local simplifications of `npu` ops: `FOLDS`, one module a family."""

from opennpu.compiler.folds import arithmetic, movement, products  # noqa: F401  fill the table
from opennpu.compiler.folds.table import FOLDS

__all__ = ["FOLDS"]
