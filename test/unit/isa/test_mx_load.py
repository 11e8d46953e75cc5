"""mx_load: every layout, read back through mx_mul with the identity."""

import pytest
import torch
from chip_lab import CHIP, TORCH_DTYPES, Lab
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand

LAYOUTS = ("kn", "nk", "packed")


def packed(w: torch.Tensor, dtype: str) -> torch.Tensor:
    """[k][n] → [strips][ceil(k/pair)][strip][pair], zeros as padding."""
    k, n = w.shape
    pair = CHIP.pair if dtype == "bf16" else 1
    padded = torch.zeros(-(-k // pair) * pair, -(-n // CHIP.strip) * CHIP.strip, dtype=w.dtype)
    padded[:k, :n] = w
    return padded.reshape(padded.shape[0] // pair, pair, -1, CHIP.strip).permute(2, 0, 3, 1)


def place(lab: Lab, w: torch.Tensor, dtype: str, layout: str) -> Instruction:
    """Writes w [k][n] to scratchpad in a layout, and the mx_load that makes it stationary."""
    k, n = w.shape
    rows = {"kn": w, "nk": w.T, "packed": packed(w, dtype)}[layout]
    tile = lab.tile(
        (1, rows.shape[0], rows[0].numel()), dtype, rows.reshape(1, rows.shape[0], -1), "spm", rows=True
    )
    fields = {
        "src": tile.address,
        "dtype": dtype,
        "layout": layout,
        "k": k,
        "n": n,
        "stride": tile.strides[1],
    }
    return Instruction("mx_load", fields)


def multiply(lab: Lab, x: torch.Tensor, dtype: str, n: int, accumulate: int = 0):
    """(x in scratchpad, dst in the accumulator, the mx_mul) for x [rows][k]."""
    rows, k = x.shape
    source = lab.tile((1, rows, k), dtype, x, "spm", rows=True)
    dst = lab.tile((1, rows, n), "f32", lab.randn((rows, n)), "acc", rows=True)
    fields = {
        "dst": dst.address,
        "dst_stride": dst.strides[1],
        "src": source.address,
        "src_stride": source.strides[1],
    }
    return source, dst, Instruction("mx_mul", {**fields, "rows": rows, "accumulate": accumulate})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 17), (31, 16), (64, 50), (CHIP.mx_k, CHIP.mx_n)])
def test_layouts(lab, layout, dtype, k, n):
    w = lab.randn((k, n)).to(TORCH_DTYPES[dtype])
    load = place(lab, w, dtype, layout)
    _, dst, mul = multiply(lab, torch.eye(k), dtype, n)
    lab.run(load, mul).expect(dst, w.float()[None])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_tile_is_captured(lab, layout):
    w = lab.randn((8, 20))
    load = place(lab, w, "f32", layout)
    _, dst, mul = multiply(lab, torch.eye(8), "f32", 20)
    whole = TileOperand("spm", "i8", Affine(load.fields["src"]), 0, 0, 1)
    overwrite = {
        "dst": whole,
        "d0": 1,
        "d1": 1,
        "d2": mul.fields["src"] - load.fields["src"],
        "value": 7,
        "is_float": 0,
    }
    got = lab.run(load, Instruction("v_fill", overwrite), mul)
    torch.testing.assert_close(dst.view(got.after), w[None], rtol=0, atol=0)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 0)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty(lab, layout, k, n):
    load = Instruction("mx_load", {"src": 0, "dtype": "f32", "layout": layout, "k": k, "n": n, "stride": 64})
    _, dst, mul = multiply(lab, torch.ones(2, 3), "f32", 5)
    got = lab.run(load, mul)
    got.expect(dst, torch.zeros(1, 2, 5) if n else dst.values())
