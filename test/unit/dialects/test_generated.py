# ruff: noqa: E501  lines of MLIR
"""Committed files that are generated are current, and stock tools read dumps with them."""

import subprocess
from pathlib import Path

import pytest
import torch_mlir
from opennpu.dialects import irdl
from opennpu.dialects.npu import doc

STOCK = Path(torch_mlir._mlir_libs.__path__[0]) / "torch-mlir-opt"
DUMP = """
func.func @main(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.binary"(%0, %1) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %2 : tensor<?x8xf32, ["T", "8"]>
}
"""


@pytest.mark.parametrize("dialect", irdl.DIALECTS, ids=lambda d: d.DIALECT_NAMESPACE)
def test_irdl_is_current(dialect):
    assert irdl.irdl_path(dialect).read_text() == irdl.irdl_text(dialect), (
        "run python -m opennpu.dialects.irdl"
    )


def test_reference_is_current():
    assert doc.PATH.read_text() == doc.page(), "run python -m opennpu.dialects.npu.doc"


@pytest.mark.parametrize("dialect", irdl.DIALECTS, ids=lambda d: d.DIALECT_NAMESPACE)
def test_stock_tools_load_irdl(dialect):
    stock(dialect, "")


def test_stock_tools_parse_a_dump():
    assert '"npu.binary"' in stock(irdl.NPU, DUMP)


def test_stock_tools_check_a_dump():
    with pytest.raises(subprocess.CalledProcessError) as failure:
        stock(irdl.NPU, DUMP.replace('{op = "exp"}', "{op = 3 : i64}"))
    assert "expected base attribute 'builtin.string'" in failure.value.stderr


def test_stock_tools_parse_regions_unverified():
    text = DUMP.replace(
        "  return",
        """  %3 = "npu.fused"() ({
    "npu.yield"(%2) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x8xf32, ["T", "8"]>) -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<?x8xf32, ["T", "8"]>
  return""",
    )
    assert '"npu.yield"' in stock(irdl.NPU, text, "--mlir-very-unsafe-disable-verifier-on-parsing")


def stock(dialect, text, *options):
    """What torch-mlir-opt, which knows nothing of us but the IRDL file, prints."""
    command = [STOCK, f"--irdl-file={irdl.irdl_path(dialect)}", *options]
    result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    result.check_returncode()
    return result.stdout
