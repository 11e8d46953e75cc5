"""The operators that random graphs are made of, from the files that hold them."""

from opennpu.tools.fuzzing import elementwise, models, movement, products, rows
from opennpu.tools.fuzzing.registry import OPERATORS, Value

FAMILIES = (elementwise, models, movement, products, rows)
"""Each registers its operators."""

__all__ = ["FAMILIES", "OPERATORS", "Value"]
