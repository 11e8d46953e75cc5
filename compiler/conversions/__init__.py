"""How each torch operator is said in `npu`: `CONVERSIONS`, one module a family of operators."""

from opennpu.compiler.conversions import (  # noqa: F401  fill the table
    attention,
    creation,
    elementwise,
    experts,
    indexing,
    opennpu,
    products,
    reductions,
    scalars,
    scatter,
    views,
)
from opennpu.compiler.conversions.table import CONVERSIONS, Conversion, Result, Unsupported

__all__ = ["CONVERSIONS", "Conversion", "Result", "Unsupported"]
