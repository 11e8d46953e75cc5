"""The dialects of the compiler: `npu`, `npu_tile`, `npu_isa` (docs/architecture.md).

The package itself imports no MLIR, for those who only want `diagnostics`.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_mlir import ir


def load_all(context: "ir.Context") -> "ir.Context":
    """Loads torch-mlir's and our own dialects into `context` and returns it."""
    from opennpu.dialects import npu, npu_isa, npu_tile
    from torch_mlir import ir
    from torch_mlir.dialects import torch as torch_dialect

    _find_classes_of_ops()
    torch_dialect.register_dialect(context)
    with context, ir.Location.unknown():
        for dialect in (npu, npu_tile, npu_isa):
            dialect.load()
    return context


@lru_cache(maxsize=1)
def _find_classes_of_ops() -> None:
    """Tells the bindings where they are. Without it every step from a use to its op looks for a module
    of torch-mlir that does not exist: 30 times slower."""
    from torch_mlir.dialects._ods_common import _cext

    _cext.globals.append_dialect_search_prefix("opennpu.dialects")
