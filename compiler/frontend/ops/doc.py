"""`docs/operators.md`, printed from the docstrings: `python -m opennpu.compiler.frontend.ops.doc`."""

import inspect
from pathlib import Path

from opennpu.compiler.frontend import ops
from torch._ops import OpOverload

PATH = Path(__file__).resolve().parents[3] / "docs" / "operators.md"

HEAD = """# The operators `torch.ops.opennpu`

Printed from the docstrings in `compiler/frontend/ops` by `python -m opennpu.compiler.frontend.ops.doc`;
do not edit.

They run on the device `opennpu` as chip programs, in compiled models as kernels of the model's program,
and on the host in plain PyTorch. They are for inference: none has a gradient, and a
backward pass through one is an error. Results are new and contiguous, whatever the strides of the operands.
"""


def page() -> str:
    """The text of docs/operators.md."""
    overloads = [x for x in (getattr(ops, name) for name in ops.__all__) if isinstance(x, OpOverload)]
    return "\n".join([HEAD, *map(section, overloads)])


def section(overload: OpOverload) -> str:
    """One operator: its schema and its docstring."""
    schema = str(overload._schema).removeprefix("opennpu::")
    return f"## `{overload._opname}`\n\n```\n{schema}\n```\n\n{inspect.cleandoc(overload.__doc__)}\n"


if __name__ == "__main__":
    PATH.write_text(page())
