"""The dialects of the compiler: `npu`, `npu_tile`, `npu_isa` (docs/architecture.md)."""

from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.dialects._ods_common import _cext

# Where the bindings look for the classes of ops. Without it every step from a use to its op
# looks for a module of torch-mlir that does not exist: 30 times slower.
_cext.globals.append_dialect_search_prefix("opennpu.dialects")


def load_all(context: ir.Context) -> ir.Context:
    """Loads torch-mlir's and our own dialects into `context` and returns it."""
    from opennpu.dialects import npu, npu_isa, npu_tile

    torch_dialect.register_dialect(context)
    with context, ir.Location.unknown():
        for dialect in (npu, npu_tile, npu_isa):
            dialect.load()
    return context
