"""dma_scatter against a loop over the list."""

import pytest
import torch
from test_dma_gather import CASES, indexed, rows_of


@pytest.mark.parametrize("dtype", ["i64", "i32"])
@pytest.mark.parametrize(("page", "row"), CASES)
def test_scatters_in_order(lab, page, row, dtype):
    table = lab.bytes(5000)
    want = table.clone()
    indices = lab.randint(0, page[3], (lab.number(1, 30),))  # may repeat: the last one stays
    scatter, listed = indexed(lab, "dma_scatter", page, row, indices, dtype)
    got = lab.run(scatter, hbm=(table, listed))
    for spm, at in rows_of(scatter, indices):
        want[at : at + row[1]] = got.before["spm"][spm : spm + row[1]]
    assert torch.equal(table, want)
    got.expect_memory(got.before)


@pytest.mark.parametrize("empty", ["count", "rows", "row_bytes"])
def test_empty(lab, empty):
    table = lab.bytes(8)
    want = table.clone()
    scatter, listed = indexed(lab, "dma_scatter", *CASES[0], lab.randint(0, 40, (3,)), "i64")
    scatter.fields[empty] = -1
    lab.run(scatter, hbm=(table, listed))
    assert torch.equal(table, want)
