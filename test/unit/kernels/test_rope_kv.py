"""Rotary embedding and KV writes on the reference engine against float64 PyTorch."""

import pytest
import torch
from chip_cases import DTYPE, Case
from opennpu.dialects import npu
from opennpu.dialects.diagnostics import CompileError

# f32 inside and one rounding: half a unit in the last place of bf16 is 2^-9 of the value.
TOLERANCE = {"bf16": 2**-8, "f32": 1e-6}


def close(actual, expected, element):
    assert actual.dtype == DTYPE[element]
    assert ((actual.double() - expected).abs().max() / expected.abs().max()).item() < TOLERANCE[element]


def rotate(x, positions, cache, d, neox):
    """x [T, H·d] as the formula says: the pair (a, b) → (a·cos - b·sin, b·cos + a·sin)."""
    r = cache.shape[1]
    heads = x.double().reshape(len(x), -1, d).clone()
    cos, sin = cache.double()[positions][:, None].chunk(2, -1)
    first, second = (slice(0, r // 2), slice(r // 2, r)) if neox else (slice(0, r, 2), slice(1, r, 2))
    a, b = heads[..., first].clone(), heads[..., second].clone()
    heads[..., first], heads[..., second] = a * cos - b * sin, b * cos + a * sin
    return heads.reshape(len(x), -1)


@pytest.mark.parametrize(
    ("heads", "d", "r", "neox", "element", "cache_element"),
    [(2, 64, 64, True, "bf16", "f32"), (3, 64, 32, False, "f32", "bf16"), (1, 8, 2, True, "f32", "f32")],
)
def test_rope(heads, d, r, neox, element, cache_element):
    torch.manual_seed(0)
    cache = torch.randn(50, r).to(DTYPE[cache_element])
    case = Case(
        lambda x, positions, cache: [npu.rope(x, positions, cache, d, neox)],
        {"x": (["T", heads * d], element), "positions": (["T"], "i64")},
        {"cache": cache},
        {"T": (1, 4096)},
    )
    for tokens in (1, 7, 300):
        x, positions = torch.randn(tokens, heads * d).to(DTYPE[element]), torch.randint(0, 50, (tokens,))
        close(case(x=x, positions=positions)[0], rotate(x, positions, cache, d, neox), element)


SIZES = [(9, 3, 64, 64, "bf16", 16), (4, 2, 32, 32, "f32", 8), (4, 2, 32, 48, "f32", 1)]


@pytest.mark.parametrize("layout", ["paged", "slots"])
@pytest.mark.parametrize(("heads", "kv_heads", "d", "dv", "element", "page"), SIZES)
def test_rope_kv_write(heads, kv_heads, d, dv, element, page, layout):
    torch.manual_seed(0)
    cache, width = torch.randn(50, d), (heads + kv_heads) * d + kv_heads * dv
    sizes = {"layer": 2, "heads": heads, "kv_heads": kv_heads, "head_dim": d, "v_head_dim": dv}
    case = Case(
        lambda qkv, positions, slots, cache: [
            npu.rope_kv_write(qkv, positions, cache, slots, **sizes, neox=True)
        ],
        {"qkv": (["T", width], element), "positions": (["T"], "i64"), "slots": (["T"], "i64")},
        {"cache": cache},
        {"T": (1, 4096)},
    )
    for tokens in (1, 37):
        pool = case.page_pool(page, 96 // page, layout)
        qkv, positions = torch.randn(tokens, width).to(DTYPE[element]), torch.randint(0, 50, (tokens,))
        slots = torch.randperm(pool.slots)[:tokens]
        (q,) = case(pool, qkv=qkv, positions=positions, slots=slots)
        turned = rotate(qkv[:, : (heads + kv_heads) * d], positions, cache, d, True)
        close(q, turned[:, : heads * d], element)
        k, v = (view[slots // page, slots % page].flatten(1) for view in pool.views(2))
        close(k, turned[:, heads * d :], element)
        assert torch.equal(v, qkv[:, (heads + kv_heads) * d :])
        untouched = sum(int(view.isnan().sum()) for n in range(3) for view in pool.views(n))
        assert untouched == (3 * pool.slots - tokens) * kv_heads * (d + dv)


def test_kv_write_of_slices():
    torch.manual_seed(0)
    heads, d = 2, 16

    def build(x, slots):
        k, v = (npu.slice_(x, 1, offset, heads * d) for offset in (8, 8 + heads * d))
        npu.kv_write(k, v, slots, layer=0, kv_heads=heads, head_dim=d, v_head_dim=d)
        return [x]

    inputs = {"x": (["T", 80], "bf16"), "slots": (["T"], "i32")}
    case = Case(build, inputs, ranges={"T": (1, None)})
    pool, x = case.page_pool(4, 16), torch.randn(21, 80).bfloat16()
    slots = torch.randperm(64)[:21]
    case(pool, x=x, slots=slots.int())
    k, v = (view[slots // 4, slots % 4].flatten(1) for view in pool.views(0))
    assert torch.equal(k, x[:, 8:40]) and torch.equal(v, x[:, 40:72])


def test_layers_of_different_kv_shapes_are_refused():
    def build(x, slots):
        for layer, heads in enumerate((2, 4)):
            k = npu.slice_(x, 1, 0, heads * 8)
            npu.kv_write(k, k, slots, layer=layer, kv_heads=heads, head_dim=8, v_head_dim=8)
        return [x]

    inputs = {"x": (["T", 32], "bf16"), "slots": (["T"], "i32")}
    with pytest.raises(CompileError, match="differ in heads"):
        Case(build, inputs, ranges={"T": (1, None)})
