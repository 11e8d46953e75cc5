"""dma_gather against a loop over the list."""

import pytest
import torch
from chip_lab import HBM_REGISTER, TORCH_DTYPES, Lab
from opennpu.dialects.isa.encoding import Affine, Instruction

TABLE, LIST = (Affine.reg(HBM_REGISTER + i) for i in range(2))
SPM = 640

# (group, group_stride, index_stride, limit), (rows, row_bytes, row_stride): token rows of a table, tokens of
# pages (16 a page), whole pages, and rows of a page one by one.
CASES = [
    ((1, 48, 0, 40), (1, 48, 0)),
    ((16, 960, 24, 64), (2, 24, 480)),
    ((1, 1000, 0, 4), (1, 1000, 0)),
    ((4, 400, 20, 37), (3, 20, 100)),
]


def locals_(local: str, local_row: int, rows: int, row_bytes: int, gap: int) -> dict[str, int]:
    """Strides of the scratchpad side: rows of an index side by side with a gap."""
    return {
        f"{local}_index_stride": rows * (row_bytes + gap) + local_row,
        f"{local}_row_stride": row_bytes + gap,
    }


def indexed(
    lab: Lab, name: str, page, row, indices: torch.Tensor, dtype: str
) -> tuple[Instruction, torch.Tensor]:
    """A dma_gather or dma_scatter, and the bytes of its list."""
    (group, group_stride, index_stride, limit), (rows, row_bytes, row_stride) = page, row
    local, table = ("dst", "src") if name == "dma_gather" else ("src", "dst")
    fields = {
        **{
            local: SPM,
            table: TABLE,
            "index": LIST,
            "index_dtype": dtype,
            "count": len(indices),
            "limit": limit,
        },
        **{"group": group, "group_stride": group_stride, "index_stride": index_stride},
        **{"rows": rows, "row_bytes": row_bytes, "row_stride": row_stride},
        **locals_(local, lab.number(0, 9), rows, row_bytes, lab.number(0, 5)),
    }
    return Instruction(name, fields), indices.to(TORCH_DTYPES[dtype]).view(torch.uint8)


def rows_of(instruction: Instruction, indices: torch.Tensor):
    """(scratchpad byte, byte of the table) of every row, in order."""
    f = instruction.fields
    local = "dst" if instruction.name == "dma_gather" else "src"
    for i, x in enumerate(indices.tolist()):
        for r in range(f["rows"]):
            at = (
                x // f["group"] * f["group_stride"] + x % f["group"] * f["index_stride"] + r * f["row_stride"]
            )
            yield SPM + i * f[f"{local}_index_stride"] + r * f[f"{local}_row_stride"], at


@pytest.mark.parametrize("dtype", ["i64", "i32"])
@pytest.mark.parametrize(("page", "row"), CASES)
def test_gathers(lab, page, row, dtype):
    table = lab.bytes(5000)
    indices = lab.randint(0, page[3], (lab.number(1, 30),))
    gather, listed = indexed(lab, "dma_gather", page, row, indices, dtype)
    got = lab.run(gather, hbm=(table, listed))
    expected = got.before["spm"].clone()
    for spm, at in rows_of(gather, indices):
        expected[spm : spm + row[1]] = table[at : at + row[1]]
    got.expect_memory({"spm": expected, "acc": got.before["acc"]})


@pytest.mark.parametrize("empty", ["count", "rows", "row_bytes"])
def test_empty(lab, empty):
    gather, listed = indexed(lab, "dma_gather", *CASES[0], lab.randint(0, 40, (3,)), "i64")
    gather.fields[empty] = 0
    got = lab.run(gather, hbm=(lab.bytes(8), listed))
    got.expect_memory(got.before)
