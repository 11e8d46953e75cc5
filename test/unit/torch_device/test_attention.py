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


def test_opcheck():
    """radix_attention_* have theirs on the host: opcheck clones tensors, which parts k_cache from v_cache."""
    args = randn(7, 4, 8), randn(7, 2, 8), randn(7, 2, 8), starts(3, 4), starts(3, 4)
    opcheck(ops.flash_attention, there(*args), {"causal": True})


TABLE = torch.tensor([[1, 0], [2, 3]], dtype=torch.int32)


def caches(pool):
    """k_cache, v_cache [pages, page_size, heads, dim] of a pool [pages, heads, k or v, page_size, dim]."""
    return pool.permute(0, 3, 1, 2, 4).unbind(3)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_radix_attention(dtype):
    """A prefill of two sequences and a step of decoding; the pages are the host's afterwards."""
    pool = randn(8, 2, 2, 4, 16, dtype=dtype)
    pages = pool.to(DEVICE)

    def new(tokens):
        return [randn(tokens, heads, 16, dtype=dtype, seed=i) for i, heads in enumerate((4, 2, 2))]

    steps = (
        (ops.radix_attention_extend, new(5), [4, 5, 8, 9, 10], [2, 3], (starts(2, 3),)),
        (ops.radix_attention_decode, new(2), [6, 11], [3, 4], ()),
    )
    for op, qkv, slots, lengths, bounds in steps:
        rest = torch.tensor(slots), TABLE, torch.tensor(lengths), *bounds
        expected = op(*qkv, *caches(pool), *rest)
        close(op(*there(*qkv), *caches(pages), *there(*rest)), expected)
        assert torch.equal(pages.cpu(), pool)


def test_errors_are_the_hosts():
    q, k, bounds = randn(7, 4, 8), randn(7, 2, 6), starts(3, 4)
    with pytest.raises(ValueError, match=r"flash_attention: k has shape \[7, 2, 6\], expected \[7, 2, 8\]"):
        ops.flash_attention(*there(q, k, k, bounds, bounds))
    rows = randn(2, 2, 8)
    apart = randn(8, 4, 2, 8), randn(8, 4, 2, 8)
    with pytest.raises(ValueError, match="views of one storage"):
        ops.radix_attention_decode(
            *there(rows, rows, rows, *apart, torch.tensor([4, 9]), TABLE, torch.tensor([1, 2]))
        )
