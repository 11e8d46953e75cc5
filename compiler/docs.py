"""`docs/passes.md`, printed from the pipeline and the passes: `python -m opennpu.compiler.docs`."""

import inspect
import sys
from pathlib import Path

from opennpu.compiler.passes import registry
from opennpu.compiler.passes.registry import Pass
from opennpu.compiler.pipeline import PIPELINE

PATH = Path(__file__).resolve().parents[1] / "docs" / "passes.md"

HEAD = """# Passes

Printed from `compiler/pipeline.py` and `compiler/passes` by `python -m opennpu.compiler.docs`; do not
edit. `npu-opt --NAME` runs one by itself. Names without a section are MLIR's own.
"""


def page() -> str:
    """The text of docs/passes.md."""
    parts = [HEAD, "## The pipeline\n"]
    parts += [f"- to `{level}`: " + ", ".join(f"`{name}`" for name in PIPELINE[level]) for level in PIPELINE]
    parts.append("")
    passes = registry.load_all()
    order = [name for names in PIPELINE.values() for name in names if name in passes]
    passes = [passes[name] for name in (*order, *sorted(passes.keys() - set(order)))]
    return "\n".join([*parts, *(_section(p) for p in passes)])


def _section(found: Pass) -> str:
    """One pass: its summary and what its module says of the algorithm."""
    module = sys.modules[found.run.__module__]
    text = inspect.cleandoc(module.__doc__ or "").removeprefix(f"{found.name}: ")
    return f"## `{found.name}`\n\n*{found.summary}*\n\n{text}\n"


if __name__ == "__main__":
    PATH.write_text(page(), encoding="utf-8")
