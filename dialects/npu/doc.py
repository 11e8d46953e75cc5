"""`docs/npu.md`, printed from the docstrings: `python -m opennpu.dialects.npu.doc`."""

import inspect
from pathlib import Path

from opennpu.dialects.npu import attention, debug, elementwise, experts, movement, products, structure
from opennpu.dialects.npu.dialect import BINARY, NPU, REDUCE, UNARY
from opennpu.dialects.npu.products import ACTIVATIONS
from torch_mlir.dialects import ext

PATH = Path(__file__).resolve().parents[2] / "docs" / "npu.md"
FAMILIES = (elementwise, products, experts, movement, attention, structure, debug)

HEAD = """# The npu dialect

Printed from the docstrings in `dialects/npu` by `python -m opennpu.dialects.npu.doc`; do not edit.
Level 1 of [architecture.md](architecture.md): ops on whole tensors, pure except where KV pages are
read or written. dtypes are f32, bf16, i64, i32, i8, i1. Extents may be symbolic:
`tensor<?x576xbf16, ["T", "576"]>`.
"""


def page() -> str:
    """The text of docs/npu.md."""
    enums = {"unary": UNARY, "binary": BINARY, "reduce": REDUCE, "activations of an epilogue": ACTIVATIONS}
    parts = [HEAD, "## Names\n", *(f"- {title}: {', '.join(names)}" for title, names in enums.items()), ""]
    for family in FAMILIES:
        parts += ["## " + inspect.cleandoc(family.__doc__).replace("\n\n", "\n\n", 1).lstrip(), ""]
        ops = [op for op in NPU.operations if op.__module__ == family.__name__]
        parts += [section(op) for op in ops]
    return "\n".join(parts)


def section(op: type[ext.Operation]) -> str:
    """One op: its docstring and its attributes."""
    attributes = [f"`{f.name}`" for f in op._fields if isinstance(f, ext.AttributeDef)]
    lines = [f"### `{op.OPERATION_NAME}`", "", inspect.cleandoc(op.__doc__), ""]
    if attributes:
        lines += ["Attributes: " + ", ".join(attributes) + ".", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
