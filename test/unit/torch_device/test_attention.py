"""Attention on the device against the same operators on the host."""

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.frontend import ops
from torch.library import opcheck

DEVICE = "opennpu"

# Probabilities are rounded to bf16 (2^-9 of each value), and so is the result; sums run in f32.
TOLERANCE = {torch.bfloat16: 2**-7, torch.float32: 1e-5}


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed)).to(dtype)


def there(*values):
    return [x.to(DEVICE) if isinstance(x, torch.Tensor) else x for x in values]


def close(y, expected):
    assert y.device.type == DEVICE and y.dtype == expected.dtype
    largest = 4  # of what is averaged
    torch.testing.assert_close(y.cpu(), expected, rtol=0, atol=TOLERANCE[y.dtype] * largest)


@pytest.fixture(autouse=True)
def _attention_is_native():
    yield
    assert [name for name in torch.opennpu.fallbacks() if "attention" in name] == []


DENSE = [
    ((2, 4, 33, 16), (2, 4, 33, 16), None, {}),
    ((2, 4, 5, 16), (2, 2, 40, 16), None, {"enable_gqa": True, "is_causal": True}),
    ((1, 4, 33, 16), (1, 4, 9, 16), (1, 1, 1, 9), {}),
    ((3, 33, 16), (3, 9, 16), (33, 9), {"scale": 0.3}),
    ((1, 2, 1, 8), (1, 2, 1, 8), None, {}),
    ((0, 2, 3, 8), (0, 2, 3, 8), None, {}),
    ((1, 2, 3, 8), (1, 2, 0, 8), None, {}),
]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("queries", "keys", "mask", "options"), DENSE)
def test_scaled_dot_product_attention(queries, keys, mask, options, dtype):
    q, k, v = randn(*queries, dtype=dtype), randn(*keys, dtype=dtype), randn(*keys, seed=1, dtype=dtype)
    seen = None if mask is None else randn(*mask) > 0
    expected = F.scaled_dot_product_attention(q, k, v, seen, **options)
    close(F.scaled_dot_product_attention(*there(q, k, v, seen), **options), expected)


def test_heads_that_are_turned():
    """As models make them: [batch, token, head, dim] seen with heads first."""
    q, k, v = (randn(2, 9, 4, 16, seed=i) for i in range(3))
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    close(F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in there(q, k, v))), expected)


def starts(*lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"causal": True}, {"causal": True, "window_left": 5, "softcap": 3.0}], ids=str
)
def test_flash_attention(options, dtype):
    q = randn(9, 8, 16, dtype=dtype)[:, ::2]
    args = q, randn(50, 2, 16, dtype=dtype), randn(50, 2, 8, dtype=dtype), starts(4, 0, 5), starts(30, 3, 17)
    close(ops.flash_attention(*there(*args), **options), ops.flash_attention(*args, **options))


def new(tokens, d=8, dtype=torch.float32):
    """q, k, v of new tokens: four query heads, two of keys and values."""
    return [randn(tokens, heads, d, dtype=dtype, seed=i) for i, heads in enumerate((4, 2, 2))]


TABLE = torch.tensor([[1, 0], [2, 3]], dtype=torch.int32)
CACHES = randn(8, 4, 2, 8), randn(8, 4, 2, 8, seed=1)
CALLS = [
    (
        ops.flash_attention,
        (*new(7), starts(3, 4), starts(3, 4)),
        {"causal": True},
    ),
    (
        ops.radix_attention_extend,
        (*new(5), *CACHES, torch.tensor([4, 5, 8, 9, 10]), TABLE, torch.tensor([2, 3]), starts(2, 3)),
        {"softcap": 5.0},
    ),
    (
        ops.radix_attention_decode,
        (*new(2), *CACHES, torch.tensor([6, 11]), TABLE, torch.tensor([3, 4])),
        {"window_left": 2},
    ),
]


@pytest.mark.parametrize(("op", "args", "options"), CALLS)
def test_opcheck(op, args, options):
    opcheck(op, there(*args), options)


def in_one_pool(pool):
    """k_cache, v_cache of a pool [pages, heads, k or v, page_size, dim]."""
    return pool.permute(0, 3, 1, 2, 4).unbind(3)


def values_first(pool):
    return in_one_pool(pool)[::-1]


def apart(pool):
    return [x.clone() for x in in_one_pool(pool)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("caches_of", [in_one_pool, values_first, apart])
def test_radix_attention(caches_of, dtype):
    """A prefill of two sequences and a step of decoding; the pages are the host's afterwards."""
    pool = randn(8, 2, 2, 4, 16, dtype=dtype)
    caches, pages = caches_of(pool), caches_of(pool.to(DEVICE))
    steps = (
        (ops.radix_attention_extend, new(5, 16, dtype), [4, 5, 8, 9, 10], [2, 3], (starts(2, 3),)),
        (ops.radix_attention_decode, new(2, 16, dtype), [6, 11], [3, 4], ()),
    )
    for op, qkv, slots, lengths, bounds in steps:
        rest = torch.tensor(slots), TABLE, torch.tensor(lengths), *bounds
        expected = op(*qkv, *caches, *rest)
        close(op(*there(*qkv), *pages, *there(*rest)), expected)
        for mine, other in zip(pages, caches, strict=True):
            assert torch.equal(mine.cpu(), other)


def test_errors_are_the_hosts():
    q, k, bounds = randn(7, 4, 8), randn(7, 2, 6), starts(3, 4)
    with pytest.raises(ValueError, match=r"flash_attention: k has shape \[7, 2, 6\], expected \[7, 2, 8\]"):
        ops.flash_attention(*there(q, k, k, bounds, bounds))


@pytest.mark.parametrize(
    ("caches", "what"),
    [
        ((randn(8, 4, 2, 8), randn(8, 2, 4, 8).transpose(1, 2)), "the same strides"),
        ((randn(8, 4, 8, 2).mT, randn(8, 4, 8, 2).mT), "side by side"),
        ((randn(8, 3, 2, 8), randn(8, 3, 2, 8)), "pages of 3 tokens: the page size .* must divide 128"),
    ],
)
def test_pages_that_do_not_fit(caches, what):
    rows, rest = randn(2, 2, 8), (torch.tensor([3, 6]), TABLE, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match=what):
        ops.radix_attention_decode(*there(rows, rows, rows, *caches, *rest))
