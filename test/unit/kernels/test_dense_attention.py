"""Attention over dense keys on the chip, against PyTorch in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from chip_cases import DTYPE
from opennpu.dialects import npu
from opennpu.runtime.chip import Chip
from tile_cases import OnChip, random

# Probabilities are rounded to bf16 (2^-9 of each value), and so is the result; sums run in f32.
TOLERANCE = {"bf16": 2**-7, "f32": 1e-5}
SYMBOLS = {"B": (1, 64), "T": (1, 4096), "S": (1, 4096)}


class Attention:
    """q[B,H,T,d], k, v[B,Hkv,S,d or dv], and a mask[B|1,H|1,T|1,S|1] of a dtype ("": none)."""

    def __init__(
        self,
        heads,
        kv_heads,
        d,
        element="f32",
        dv=None,
        causal=False,
        scale=None,
        mask="",
        shape=None,
        **options,
    ):
        self.heads, self.kv_heads, self.d, self.dv = heads, kv_heads, d, dv or d
        self.element, self.causal, self.scale, self.mask = element, causal, scale or d**-0.5, mask
        shape = shape or ("B", heads, "T", "S")
        inputs = {
            "q": (("B", heads, "T", d), element),
            "k": (("B", kv_heads, "S", d), element),
            "v": (("B", kv_heads, "S", self.dv), element),
            **({"mask": (shape, mask)} if mask else {}),
        }

        def build(q, k, v, mask=None):
            if mask is not None:
                mask = npu.broadcast_to(mask, [*npu.dims(q)[:-1], npu.dims(k)[2]])
            return npu.dense_attention(q, k, v, mask, scale=self.scale, causal=causal)

        self.on_chip = OnChip(build, inputs, SYMBOLS, **options)

    def random(self, batch, rows, keys, mask_shape=()):
        shapes = (
            (batch, self.heads, rows, self.d),
            (batch, self.kv_heads, keys, self.d),
            (batch, self.kv_heads, keys, self.dv),
        )
        tensors = dict(zip("qkv", (random(s, self.element, i) for i, s in enumerate(shapes)), strict=True))
        return {**tensors, **({"mask": random(mask_shape, self.mask, 3)} if self.mask else {})}

    def check(self, **tensors):
        (y,) = self.on_chip(**tensors)
        q, k, v, mask = (tensors.get(name) for name in ("q", "k", "v", "mask"))
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        bias = torch.zeros(seen.shape, dtype=torch.double)
        bias = bias.masked_fill(~seen.tril(), -torch.inf) if self.causal else bias
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf) if self.mask == "i1" else bias + mask
        expected = F.scaled_dot_product_attention(
            q.double(), k.double(), v.double(), attn_mask=bias, scale=self.scale, enable_gqa=True
        )
        assert y.dtype == DTYPE[self.element] and y.shape == expected.shape
        torch.testing.assert_close(
            y.double(), expected, rtol=0, atol=TOLERANCE[self.element] * max(1, expected.abs().max())
        )


CASES = [
    # heads, kv heads, d, dtype, dv, causal, batch, queries, keys
    (3, 3, 64, "bf16", None, False, 2, 17, 17),
    (3, 3, 64, "bf16", None, True, 1, 200, 200),
    (4, 2, 32, "f32", None, False, 2, 5, 300),
    (4, 1, 32, "f32", 24, True, 2, 140, 70),  # queries past the last key
    (4, 2, 32, "f32", 40, True, 1, 70, 140),
    (2, 2, 160, "f32", None, False, 1, 130, 129),
    (1, 1, 8, "f32", None, False, 1, 1, 1),
]


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "d", "element", "dv", "causal", "batch", "rows", "keys"), CASES
)
def test_against_pytorch(heads, kv_heads, d, element, dv, causal, batch, rows, keys, engine):
    attention = Attention(heads, kv_heads, d, element, dv, causal, engine=engine)
    attention.check(**attention.random(batch, rows, keys))


MASKS = [
    # extents of the mask, the same as types
    ((2, 4, 70, 150), ("B", 4, "T", "S")),
    ((2, 1, 70, 150), ("B", 1, "T", "S")),
    ((1, 1, 70, 150), (1, 1, "T", "S")),
    ((2, 1, 1, 150), ("B", 1, 1, "S")),
    ((1, 4, 1, 150), (1, 4, 1, "S")),
    ((2, 4, 70, 1), ("B", 4, "T", 1)),
]


@pytest.mark.parametrize("element", ["i1", "f32", "bf16"])
@pytest.mark.parametrize(("extents", "shape"), MASKS)
def test_masks(element, extents, shape):
    attention = Attention(4, 2, 32, mask=element, shape=shape)
    tensors = attention.random(2, 70, 150, extents)
    if element != "i1":
        tensors["mask"][..., 0, 0] = -torch.inf
    attention.check(**tensors)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_small_mask_leaves_room_for_more_slots(engine):
    """One row of bools: keys and values then have more slots in their loop than the mask."""
    attention = Attention(8, 8, 64, "bf16", mask="i1", shape=(1, 1, 1, "S"), engine=engine)
    attention.check(**attention.random(1, 300, 300, (1, 1, 1, 300)))


def test_a_mask_and_causal():
    attention = Attention(2, 2, 16, mask="i1", causal=True)
    attention.check(**attention.random(1, 150, 150, (1, 2, 150, 150)))


@pytest.mark.parametrize("element", ["i1", "f32"])
@pytest.mark.parametrize("scale", [-0.5, 1.0])
def test_queries_that_see_nothing_are_zero(element, scale):
    """As in PyTorch; also with a scale that turns the order of the scores."""
    attention = Attention(2, 2, 16, mask=element, scale=scale)
    tensors = attention.random(1, 40, 150, (1, 2, 40, 150))
    tensors["mask"][:, :, 7] = False if element == "i1" else -torch.inf
    attention.check(**tensors)


def test_no_keys():
    y = _static(3, 0)
    assert y.shape == (2, 2, 3, 8) and not y.any()


def test_no_queries():
    assert _static(0, 5).shape == (2, 2, 0, 8)


def _static(rows, keys):
    inputs = {"q": ((2, 2, rows, 8), "f32"), "k": ((2, 2, keys, 8), "f32"), "v": ((2, 2, keys, 8), "f32")}
    on_chip = OnChip(lambda q, k, v: npu.dense_attention(q, k, v, None, scale=1.0, causal=False), inputs)
    return on_chip(**{name: torch.ones(shape) for name, (shape, _) in inputs.items()})[0]


def test_strides_need_no_copy():
    """q, k and v are slices of one product, heads turned, as encoders make them; o is turned back."""
    heads, d = 3, 16

    def build(x):
        q, k, v = (
            npu.transpose(
                npu.reshape(npu.slice_(x, 2, i * heads * d, heads * d), ["B", "T", heads, d]), [0, 2, 1, 3]
            )
            for i in range(3)
        )
        o = npu.dense_attention(q, k, v, None, scale=0.25, causal=False)
        return npu.reshape(npu.transpose(o, [0, 2, 1, 3]), ["B", "T", heads * d])

    case = OnChip(build, {"x": (("B", "T", 3 * heads * d), "f32")}, {"B": (1, 8), "T": (1, 512)})
    assert [entry["kernel"] for entry in case.case.signature.report] == ["dense_attention"]
    x = random((2, 40, 3 * heads * d), "f32")
    (y,) = case(x=x)
    q, k, v = (part.unflatten(-1, (heads, d)).transpose(1, 2) for part in x.chunk(3, -1))
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.25).transpose(1, 2).flatten(2)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)  # f32 sums in another order


@pytest.mark.parametrize("causal", [False, True])
def test_a_row_does_not_depend_on_the_others(causal):
    """Bit for bit: in a batch, and with other queries around it."""
    attention = Attention(4, 2, 32, causal=causal)
    tensors = attention.random(3, 150, 200)
    (whole,) = attention.on_chip(**tensors)
    (alone,) = attention.on_chip(**{name: x[1:2] for name, x in tensors.items()})
    assert torch.equal(alone, whole[1:2])
    (fewer,) = attention.on_chip(**{**tensors, "q": tensors["q"][:, :, :33]})
    assert torch.equal(fewer, whole[:, :, :33])


def test_other_chips():
    chip = replace(Chip.load("npu1-lite"), mx_n=64, cores=1)
    attention = Attention(4, 2, 32, mask="f32", chip=chip)
    attention.check(**attention.random(1, 70, 150, (1, 4, 70, 150)))
