"""The opennpu:: operators against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.frontend import ops

BF16_ROUNDING = 2**-8  # relative: one rounding to bf16


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rms_norm_rounds_once():
    x, w = torch.randn(5, 24).bfloat16(), torch.randn(24).bfloat16()
    expected = F.rms_norm(x.double(), (24,), w.double(), 1e-5)
    torch.testing.assert_close(ops.rms_norm(x, w, 1e-5).double(), expected, rtol=BF16_ROUNDING, atol=1e-6)


def test_add_rms_norm_returns_the_sum():
    x, residual, w = torch.randn(5, 24), torch.randn(5, 24), torch.randn(24)
    normed, total = ops.add_rms_norm(x, residual, w, 1e-5)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(normed, F.rms_norm(x + residual, (24,), w, 1e-5))


def test_gated_activations():
    x = torch.randn(3, 4, 12)
    gate, up = x.split(6, -1)
    torch.testing.assert_close(ops.silu_and_mul(x), F.silu(gate) * up)
    for approximate in ("none", "tanh"):
        expected = F.gelu(gate, approximate=approximate) * up
        torch.testing.assert_close(ops.gelu_and_mul(x, approximate), expected)


@pytest.mark.parametrize("neox", [True, False])
@pytest.mark.parametrize("rotary_dim", [8, 4])
def test_rotary_embedding_is_a_complex_product(neox, rotary_dim):
    head_dim, positions = 8, torch.tensor([3, 0, 7])
    angles = torch.arange(10)[:, None] * torch.rand(rotary_dim // 2)
    cache = torch.cat([angles.cos(), angles.sin()], -1)
    q, k = torch.randn(3, 2 * head_dim), torch.randn(3, head_dim)
    for x, y in zip((q, k), ops.rotary_embedding(positions, q, k, cache, head_dim, neox), strict=True):
        x, y = x.view(3, -1, head_dim), y.view(3, -1, head_dim)
        torch.testing.assert_close(y[..., rotary_dim:], x[..., rotary_dim:])
        turn = torch.polar(torch.ones(()), angles[positions])[:, None]
        expected = _as_complex(x[..., :rotary_dim], neox) * turn
        torch.testing.assert_close(_as_complex(y[..., :rotary_dim], neox), expected)


def _as_complex(x, neox):
    real, imaginary = x.chunk(2, -1) if neox else (x[..., ::2], x[..., 1::2])
    return torch.complex(real.contiguous(), imaginary.contiguous())


@pytest.mark.parametrize("window", [0, 3])
def test_paged_attention_in_chunks_is_attention(window):
    """Two sequences, in scattered pages, fed in chunks of different sizes."""
    heads, kv_heads, head_dim, v_head_dim, page_size = 4, 2, 8, 6, 4
    lengths, pages = [7, 5], torch.tensor([[5, 2], [1, 6]], dtype=torch.int32)
    q, k = torch.randn(2, 7, heads, head_dim), torch.randn(2, 7, kv_heads, head_dim)
    v = torch.randn(2, 7, kv_heads, v_head_dim)
    expected = [_attention(q[b, :n], k[b, :n], v[b, :n], window) for b, n in enumerate(lengths)]

    done, results = [0, 0], [[], []]
    with ops.kv_store(ops.KvStore(page_size=page_size, slots=8 * page_size)):
        for chunks in ([3, 1], [1, 1], [3, 3]):
            rows = [(b, t) for b in (0, 1) for t in range(done[b], done[b] + chunks[b])]
            slots = [int(pages[b, t // page_size]) * page_size + t % page_size for b, t in rows]
            b_of, t_of = torch.tensor(rows).T
            done = [a + c for a, c in zip(done, chunks, strict=True)]
            out = ops.paged_attention(
                *(x[b_of, t_of].flatten(1) for x in (q, k, v)),
                torch.tensor(slots),
                pages,
                torch.tensor(done),
                torch.tensor([0, chunks[0], sum(chunks)]),
                layer=0,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                v_head_dim=v_head_dim,
                scale=head_dim**-0.5,
                logit_cap=0.0,
                window=window,
            )
            for b, part in enumerate(out.split(chunks)):
                results[b].append(part)
    for parts, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(torch.cat(parts), wanted)


def _attention(q, k, v, window):
    """PyTorch's attention of one sequence, [tokens, heads, dim] each; [tokens, heads·v_dim]."""
    age = torch.arange(len(q))[:, None] - torch.arange(len(q))
    visible = (age >= 0) & (age < window) if window else age >= 0
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)
    return out.transpose(0, 1).flatten(1)


def test_paged_attention_needs_memory():
    with pytest.raises(RuntimeError, match="kv_store"):
        empty = torch.zeros(1, 4)
        index = torch.zeros(1, dtype=torch.int64)
        ops.paged_attention(
            empty, empty, empty, index, index[None].int(), index + 1, index, 0, 1, 1, 4, 4, 1.0, 0.0, 0
        )
