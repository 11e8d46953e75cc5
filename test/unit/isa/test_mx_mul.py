"""mx_mul against float64, and in the reference engine's order against a chain of fused multiply-adds."""

import pytest
import torch
from chip_lab import CHIP, TORCH_DTYPES, fused_multiply_add
from test_mx_load import multiply, place


@pytest.mark.parametrize("accumulate", [0, 1, -3])
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize(("rows", "k", "n"), [(1, 1, 1), (1, 64, 48), (5, 33, 17), (7, CHIP.mx_k, CHIP.mx_n)])
def test_product(lab, rows, k, n, dtype, accumulate):
    w, x = (lab.randn(s).to(TORCH_DTYPES[dtype]) for s in ((k, n), (rows, k)))
    load = place(lab, w, dtype, "packed")
    _, dst, mul = multiply(lab, x, dtype, n, accumulate)
    start = dst.values() * (accumulate != 0)
    want = start.double() + x.double() @ w.double()
    # isa.toml's bound, and the start value taking part in k roundings.
    bound = k * 2.0**-23 * float((start.double().abs() + x.double().abs() @ w.double().abs()).max())
    got = lab.run(load, mul)
    got.expect(dst, want, absolute=bound)
    if lab.exact:
        got.expect(dst, fused_chain(start[0], x.float(), w.float())[None])


def fused_chain(acc: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """acc + Σ over i ascending, f32 [rows][n]."""
    for i in range(w.shape[0]):
        acc = fused_multiply_add(x[:, i : i + 1], w[i], acc)
    return acc


def test_one_tile_serves_many(lab):
    w = lab.randn((16, 24))
    load = place(lab, w, "f32", "kn")
    _, first, mul_first = multiply(lab, torch.eye(16), "f32", 24)
    _, second, mul_second = multiply(lab, 2 * torch.eye(16), "f32", 24)
    got = lab.run(load, mul_first, mul_second)
    torch.testing.assert_close(first.view(got.after), w[None], rtol=0, atol=0)
    torch.testing.assert_close(second.view(got.after), 2 * w[None], rtol=0, atol=0)


@pytest.mark.parametrize("rows", [0, -4])
def test_empty(lab, rows):
    load = place(lab, lab.randn((4, 4)), "f32", "kn")
    _, _, mul = multiply(lab, torch.ones(3, 4), "f32", 4)
    mul.fields["rows"] = rows
    got = lab.run(load, mul)
    got.expect_memory(got.before)


def test_before_any_load_nothing_is_written(lab):
    _, _, mul = multiply(lab, torch.ones(3, 4), "f32", 4)
    got = lab.run(mul)
    got.expect_memory(got.before)
