"""Rolled layers on the reference engine against float64 PyTorch."""

import pytest
import torch
import torch.nn.functional as F
from chip_cases import Case
from opennpu.dialects import npu
from opennpu.dialects.symbols import tensor_type

# A few layers of sums over at most 96 products in f32.
TOLERANCE = 1e-5


def close(actual, expected):
    assert ((actual.double() - expected).abs().max() / expected.abs().max()).item() < TOLERANCE


def types(*shapes):
    return [tensor_type(shape, npu.element_type("f32")) for shape in shapes]


@pytest.mark.parametrize("count", [1, 4])
def test_layers_with_residual(count):
    """Two carried values, one yielded from the place of the other; z is the same in all layers."""
    torch.manual_seed(0)
    names = {kind: [f"{kind}{i}" for i in range(count)] for kind in ("up", "down", "norm")}
    layers = {name: torch.randn(96, 64) / 8 for name in names["up"]}
    layers |= {name: torch.randn(64, 96) / 10 for name in names["down"]}
    layers |= {name: torch.rand(64) + 0.5 for name in names["norm"]}

    def layer(index, carried, params):
        normed, total = npu.add_rms_norm(*carried, params[2], 1e-5)
        hidden = npu.matmul(normed, params[0], True, ["silu"])
        return [total, npu.binary("add", npu.matmul(hidden, params[1], True), z_outside[0])]

    z_outside = []

    def build(x, z, w):
        z_outside.append(z)
        inits = [npu.matmul(x, w, True), z]
        shapes = types((96, 64), (64, 96), (64,))
        a, b = npu.repeat(inits, count, list(names.values()), shapes, layer)
        return [npu.binary("sub", a, z), b]

    w = torch.randn(64, 64) / 8
    inputs = {name: (["T", 64], "f32") for name in ("x", "z")}
    case = Case(build, inputs, {"w": w}, {"T": (1, 4096)}, layers=layers)
    for tokens in (1, 70):
        x, z = torch.randn(tokens, 64), torch.randn(tokens, 64)
        a, b = x.double() @ w.double().T, z.double()
        for up, down, norm in zip(*names.values(), strict=True):
            total = a + b
            normed = F.rms_norm(total, (64,), layers[norm].double(), 1e-5)
            a, b = total, F.silu(normed @ layers[up].double().T) @ layers[down].double().T + z.double()
        found = case(x=x, z=z)
        close(found[0], a - z.double())
        close(found[1], b)


@pytest.mark.parametrize("count", [2, 3])
def test_carried_values_change_places(count):
    case = Case(
        lambda x, y: npu.repeat([x, y], count, [], [], lambda index, carried, params: carried[::-1]),
        {name: (["T", 9], "bf16") for name in ("x", "y")},
        ranges={"T": (1, None)},
    )
    x, y = torch.randn(5, 9).bfloat16(), torch.randn(5, 9).bfloat16()
    a, b = case(x=x, y=y)
    assert torch.equal(a, y if count % 2 else x) and torch.equal(b, x if count % 2 else y)


def test_layers_have_their_own_pages():
    """The loop's index is the layer of a KV write."""

    def layer(index, carried, params):
        npu.kv_write(*carried * 2, slots_outside[0], layer=1, kv_heads=1, head_dim=8, v_head_dim=8)
        return [npu.binary("add", carried[0], carried[0])]

    slots_outside = []

    def build(x, slots):
        slots_outside.append(slots)
        return npu.repeat([x], 3, [], [], layer)

    case = Case(build, {"x": (["T", 8], "f32"), "slots": (["T"], "i64")}, ranges={"T": (1, None)})
    pool, x, slots = case.page_pool(4, 2), torch.randn(5, 8), torch.tensor([7, 0, 3, 4, 1])
    (y,) = case(pool, x=x, slots=slots)
    assert torch.equal(y, x * 8) and pool.kv.layers == 4
    for n in range(3):
        for view in pool.views(n + 1):
            assert torch.equal(view[slots // 4, slots % 4, 0], x * 2**n)
    assert all(view.isnan().all() for view in pool.views(0))
