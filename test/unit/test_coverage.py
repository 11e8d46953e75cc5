"""Every op and pass has its test and its line in the generated pages, and those are current."""

import re
from pathlib import Path

import pytest
from opennpu.compiler import docs
from opennpu.compiler.passes import registry
from opennpu.dialects import irdl
from opennpu.dialects.npu_tile import doc as tile_doc

REPOSITORY = Path(__file__).parents[2]
LIT = "\n".join(path.read_text() for path in (REPOSITORY / "test" / "lit").rglob("*.mlir"))


def mentioned(name: str, text: str) -> bool:
    return re.search(re.escape(name) + r"\b", text) is not None


@pytest.mark.parametrize("dialect", irdl.DIALECTS, ids=lambda d: d.DIALECT_NAMESPACE)
def test_every_op_stands_in_a_lit_test(dialect):
    assert [op.OPERATION_NAME for op in dialect.operations if not mentioned(op.OPERATION_NAME, LIT)] == []


def test_every_pass_is_run_by_a_lit_test():
    assert [name for name in registry.load_all() if not mentioned(f"--{name}", LIT)] == []


@pytest.mark.parametrize("printer", [docs, tile_doc], ids=["passes", "npu_tile"])
def test_pages_are_current(printer):
    assert printer.PATH.read_text() == printer.page(), f"run python -m {printer.__name__}"
