"""flash_attention and radix_attention_*: opcheck, values against PyTorch's own, and errors."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.frontend import ops
from torch.library import opcheck

BF16_ROUNDING = 2**-8  # relative: one rounding to bf16


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def heads_between_others(tokens, heads, d, dtype=torch.float32):
    """Rows and heads with gaps."""
    return randn(tokens, 2 * heads, 2 * d, dtype=dtype)[:, ::2, :d]


def starts(*lengths, dtype=torch.int32):
    return torch.tensor([0, *lengths]).cumsum(0).to(dtype)


class Pages:
    """Pages of one storage, and sequences of these lengths in some of them; `new` tokens of each come now."""

    def __init__(self, lengths, new, kv_heads=2, d=8, dv=8, page_size=4, dtype=torch.float32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        pages = [-(-n // page_size) for n in lengths]
        order = torch.randperm(sum(pages) + 1, generator=generator).split([*pages, 1])
        self.table = torch.zeros(len(lengths), max(pages), dtype=torch.int32)
        for row, mine in zip(self.table, order[:-1], strict=True):
            row[: len(mine)] = mine
        pool = torch.randn(sum(pages) + 1, kv_heads, 2, page_size, max(d, dv), generator=generator).to(dtype)
        pool = pool.permute(0, 3, 1, 2, 4)  # [page, token, head, k or v, dim]
        self.k_cache, self.v_cache = pool[:, :, :, 0, :d], pool[:, :, :, 1, :dv]
        self.lengths, self.new, self.page_size = lengths, new, page_size
        at = torch.cat([torch.arange(n - c, n) for n, c in zip(lengths, new, strict=True)])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(new))
        self.slots = self.table[owner, at // page_size].long() * page_size + at % page_size

    @property
    def arguments(self):
        """From k_cache to seq_lens."""
        return self.k_cache, self.v_cache, self.slots, self.table, torch.tensor(self.lengths)

    def sequence(self, b):
        """Keys and values of a sequence, [length, heads, dim]."""
        t = torch.arange(self.lengths[b])
        page = self.table[b, t // self.page_size].long()
        return self.k_cache[page, t % self.page_size], self.v_cache[page, t % self.page_size]


def extend_arguments(pages, heads=4, d=8, dv=8, dtype=torch.float32):
    tokens, kv_heads = sum(pages.new), pages.k_cache.shape[2]
    q = heads_between_others(tokens, heads, d, dtype)
    k, v = heads_between_others(tokens, kv_heads, d, dtype), randn(tokens, kv_heads, dv, dtype=dtype)
    return q, k, v, *pages.arguments


PREFILL, DECODE = Pages([5, 9, 3], [5, 2, 0]), Pages([5, 9, 3], [1, 1, 1])
BF16 = {"dtype": torch.bfloat16}
CALLS = [
    (ops.flash_attention, (randn(7, 4, 8), randn(7, 2, 8), randn(7, 2, 8), starts(3, 4), starts(3, 4)), {}),
    (
        ops.flash_attention,
        (
            heads_between_others(7, 4, 8, **BF16),
            heads_between_others(9, 1, 8, **BF16),
            heads_between_others(9, 1, 6, **BF16),
            starts(0, 7, dtype=torch.int64),
            starts(9, 0, dtype=torch.int64),
        ),
        {"causal": True, "window_left": 3, "softcap": 5.0, "softmax_scale": 0.3},
    ),
    (ops.flash_attention, (randn(0, 4, 8), randn(0, 2, 8), randn(0, 2, 8), starts(), starts()), {}),
    (ops.radix_attention_extend, (*extend_arguments(PREFILL), starts(5, 2, 0)), {}),
    (ops.radix_attention_extend, (*extend_arguments(PREFILL), starts(5, 2, 0)), {"softcap": 5.0}),
    (ops.radix_attention_decode, extend_arguments(DECODE), {"window_left": 2}),
]


@pytest.mark.parametrize(("op", "args", "options"), CALLS)
def test_opcheck(op, args, options):
    opcheck(op, args, options)


@pytest.mark.parametrize(
    ("causal", "window_left"), [(False, -1), (True, -1), (True, 2), (False, 2), (True, 0)]
)
def test_flash_attention_is_attention_of_each_sequence(causal, window_left):
    rows, keys = [5, 0, 3, 1], [5, 2, 8, 1]
    q, k, v = randn(9, 4, 8), randn(16, 2, 8), randn(16, 2, 6)
    y = ops.flash_attention(
        q, k, v, starts(*rows), starts(*keys), causal=causal, window_left=window_left, softmax_scale=0.3
    )
    parts = zip(q.split(rows), k.split(keys), v.split(keys), strict=True)
    expected = torch.cat([attention(*part, 0.3, causal, window_left) for part in parts])
    torch.testing.assert_close(y, expected)


def test_flash_attention_of_a_query_without_keys_is_zero():
    """More queries than keys: the first come before all of them."""
    y = ops.flash_attention(randn(5, 2, 8), randn(2, 2, 8), randn(2, 2, 8), starts(5), starts(2), causal=True)
    assert not y[:3].any() and y[3:].all()


def test_flash_attention_softcap_and_rounding():
    q, k, v = (randn(6, 2, 8, **BF16) for _ in range(3))
    y = ops.flash_attention(q, k, v, starts(6), starts(6), softcap=0.5)
    scores = 0.5 * torch.tanh(torch.einsum("qhd,khd->hqk", q.double(), k.double()) * 8**-0.5 / 0.5)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.double())
    torch.testing.assert_close(y.double(), expected, rtol=BF16_ROUNDING, atol=1e-6)


def attention(q, k, v, scale, causal, window_left):
    """PyTorch's attention of one sequence, [tokens, heads, dim]; the last query stands at the last key."""
    n, m = len(q), len(k)
    age = torch.arange(m - n, m)[:, None] - torch.arange(m)
    seen = ((age >= 0) | (not causal)) & ((age <= window_left) | (window_left < 0))
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
    return o.transpose(0, 1)


@pytest.mark.parametrize("page_size", [1, 4])
@pytest.mark.parametrize("window_left", [-1, 2])
def test_radix_attention_extend(page_size, window_left):
    """New tokens come after a prefix; what other pages hold does not change."""
    pages = Pages([5, 9, 3], [5, 2, 1], dv=6, page_size=page_size)
    arguments = extend_arguments(pages, dv=6)
    q, k, v = arguments[:3]
    before = pages.k_cache.clone(), pages.v_cache.clone()
    bounds = starts(*pages.new)
    y = ops.radix_attention_extend(*arguments, bounds, window_left=window_left)
    for cache, old, rows in zip((pages.k_cache, pages.v_cache), before, (k, v), strict=True):
        expected = old.flatten(0, 1).index_put((pages.slots,), rows)
        assert torch.equal(cache.flatten(0, 1), expected)
    for b, (first, end) in enumerate(pairwise(bounds.tolist())):
        expected = attention(q[first:end], *pages.sequence(b), 8**-0.5, True, window_left)
        torch.testing.assert_close(y[first:end], expected)


def test_radix_attention_decode_extends_by_one_token():
    one, other = (Pages([5, 9, 3], [1, 1, 1], seed=3) for _ in range(2))
    y = ops.radix_attention_decode(*extend_arguments(one), softcap=2.0)
    expected = ops.radix_attention_extend(*extend_arguments(other), starts(1, 1, 1), softcap=2.0)
    assert torch.equal(y, expected) and torch.equal(one.k_cache, other.k_cache)


def call(op, *args, **changed):
    """The call with some of its arguments exchanged, by position as `_3`."""
    args = list(args)
    for name in [name for name in changed if name[0] == "_"]:
        args[int(name[1:])] = changed.pop(name)
    return lambda: op(*args, **changed)


PACKED = CALLS[0][:1] + CALLS[0][1]
EXTEND = CALLS[3][:1] + CALLS[3][1]
ERRORS = [
    (call(*PACKED, _0=randn(7, 4, 8).double()), TypeError, "flash_attention: q has dtype float64"),
    (call(*PACKED, _0=randn(7, 32)), ValueError, "q has 2 dimensions, expected 3"),
    (call(*PACKED, _1=randn(7, 2, 8, **BF16)), TypeError, "k has dtype bfloat16, expected float32"),
    (call(*PACKED, _1=randn(7, 2, 6)), ValueError, r"k has shape \[7, 2, 6\], expected \[7, 2, 8\]"),
    (call(*PACKED, _2=randn(6, 2, 8)), ValueError, r"v has shape \[6, 2, 8\], expected \[7, 2, 8\]"),
    (call(*PACKED, _0=randn(7, 3, 8)), ValueError, "q has 3 heads, expected a multiple of k's 2"),
    (call(*PACKED, _4=starts(3, 4).float()), TypeError, "cu_seqlens_k has dtype float32"),
    (call(*PACKED, _4=starts(3)), ValueError, r"cu_seqlens_k has shape \[2\], expected \[3\]"),
    (call(*PACKED, window_left=-2), ValueError, "window_left is -2, expected at least -1"),
    (call(*PACKED, softcap=-1.0), ValueError, "softcap is -1.0, expected at least 0"),
    (call(*EXTEND, _1=randn(6, 2, 8)), ValueError, r"radix_attention_extend: k has shape \[6, 2, 8\]"),
    (call(*EXTEND, _3=randn(6, 2, 8)), ValueError, "k_cache has 3 dimensions, expected 4"),
    (call(*EXTEND, _4=randn(7, 2, 2, 8)), ValueError, r"v_cache has shape \[7, 2, 2, 8\], expected"),
    (call(*EXTEND, _4=PREFILL.v_cache.bfloat16()), TypeError, "v_cache has dtype bfloat16, expected float32"),
    (call(*EXTEND, _5=torch.zeros(6).long()), ValueError, r"slot_mapping has shape \[6\], expected \[7\]"),
    (call(*EXTEND, _6=PREFILL.table[:2]), ValueError, r"block_table has shape \[2, 3\], expected \[3, 3\]"),
    (call(*EXTEND, _6=PREFILL.table.float()), TypeError, "block_table has dtype float32"),
    (call(*EXTEND, _8=starts(5, 2)), ValueError, r"cu_seqlens_q has shape \[3\], expected \[4\]"),
    (
        call(ops.radix_attention_decode, *extend_arguments(PREFILL)),
        ValueError,
        r"radix_attention_decode: seq_lens has shape \[3\], expected \[7\]",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), ERRORS)
def test_errors_name_operator_and_argument(call, error, text):
    with pytest.raises(error, match=text):
        call()
