"""`docs/npu_tile.md`, printed from the docstrings: `python -m opennpu.dialects.npu_tile.doc`."""

import inspect
from pathlib import Path

from opennpu.dialects.isa.table import ISA
from opennpu.dialects.npu_tile.dialect import ENGINE_OPS, NpuTile
from torch_mlir.dialects import ext

PATH = Path(__file__).resolve().parents[2] / "docs" / "npu_tile.md"

HEAD = """# The npu_tile dialect

Printed from `dialects/npu_tile` and `dialects/isa/isa.toml` by `python -m opennpu.dialects.npu_tile.doc`;
do not edit. Level 2 of [architecture.md](architecture.md): tiles in scratchpad and accumulator, `scf`
loops, DMA. Scalars are i64. An operand in a memory of the core is a buffer and an offset in bytes.
"""


def page() -> str:
    """The text of docs/npu_tile.md."""
    structure = [op for op in NpuTile.operations if op not in ENGINE_OPS.values()]
    parts = [HEAD, "## Structure\n", *(_section(op) for op in structure)]
    parts += ["## Engine operations\n", "One an instruction; [isa.md](isa.md) says what they do.\n"]
    parts += [_section(ENGINE_OPS[spec.name], f"Queue: {spec.engine}.") for spec in ISA.engine_instructions]
    return "\n".join(parts)


def _section(op: type[ext.Operation], text: str = "") -> str:
    lines = [f"### `{op.OPERATION_NAME}`", "", text or inspect.cleandoc(op.__doc__), ""]
    for title, kind in (
        ("Operands", ext.OperandDef),
        ("Attributes", ext.AttributeDef),
        ("Results", ext.ResultDef),
    ):
        names = [f"`{f.name}`" for f in op._fields if isinstance(f, kind)]
        lines += [f"{title}: {', '.join(names)}.", ""] if names else []
    return "\n".join(lines)


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
