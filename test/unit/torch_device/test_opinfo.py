"""A part of PyTorch's samples (test/opinfo), and whether docs/torch_ops.md is of today's operators."""

import re
from pathlib import Path

import opinfo_table as table
import pytest
import torch

PAGE = Path(__file__).parents[3] / "docs" / "torch_ops.md"
SOME = ("add", "where", "sum", "softmax", "mm", "nn.functional.linear", "cat", "index_select", "clone")


def test_the_page_has_every_operator():
    rows = re.findall(r"^\| (\S+) \| (`.*`) \|", PAGE.read_text(), re.MULTILINE)
    written = {name: re.findall(r"`([^`]*)`", operators) for name, operators in rows}
    entries = table.entries()
    assert written == {
        name: [operator.removeprefix("aten.") for operator in operators]
        for name, operators in entries.items()
    }


def test_every_native_operator_has_samples():
    covered = {operator for operators in table.entries().values() for operator in operators}
    assert {name for name, _, _ in table.native.aten_operators()} <= covered


@pytest.mark.parametrize("name", SOME)
@pytest.mark.filterwarnings("ignore")
def test_samples(name):
    """The first samples of each dtype give the CPU's results."""
    outcomes = list(table.outcomes(name, (torch.float32, torch.int64), limit=4))
    assert outcomes
    assert not [reason for status, reason in outcomes if status == table.FAILED]
