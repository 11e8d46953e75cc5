"""Paged attention on the reference engine against float64 PyTorch."""

from dataclasses import replace

import pytest
import torch
from chip_cases import DTYPE, Case
from opennpu.dialects import npu
from opennpu.runtime.chip import Chip

# K, V and the probabilities are rounded to bf16 (2^-9 of each value), sums run in f32.
TOLERANCE = {"bf16": 2**-7, "f32": 1e-5}


class Attention:
    """One op on one chip, called with sequences of random K and V on pages in random order."""

    def __init__(self, heads, kv_heads, d, element="f32", window=0, cap=0.0, dv=None, chip="npu1-lite"):
        self.heads, self.kv_heads, self.d, self.dv = heads, kv_heads, d, dv or d
        self.element, self.window, self.cap = element, window, cap

        def build(q, block_table, seq_lens, q_start):
            sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": d, "v_head_dim": self.dv}
            options = {"scale": d**-0.5, "logit_cap": cap, "window": window}
            return [npu.paged_attention(q, block_table, seq_lens, q_start, layer=1, **sizes, **options)]

        inputs = {
            "q": (["T", heads * d], element),
            "block_table": (["B", "P"], "i32"),
            "seq_lens": (["B"], "i32"),
            "q_start": (["B + 1"], "i32"),
        }
        ranges = {"T": (1, 4096), "B": (1, 64), "P": (1, None)}
        self.case = Case(build, inputs, ranges=ranges, chip=chip)

    def run(self, q, keys, values, page_size, layout="paged", seed=0):
        """q: a list of [n, heads·d] by sequence; keys, values: [length, kv_heads, d] each."""
        torch.manual_seed(seed)
        lengths = [len(k) for k in keys]
        pages = [-(-n // page_size) for n in lengths]
        pool = self.case.page_pool(page_size, sum(pages) + 2, layout)
        order = torch.randperm(sum(pages) + 2, dtype=torch.int32)
        table = torch.zeros(len(q), max(pages) + 1, dtype=torch.int32)
        k_pages, v_pages = pool.views(1)
        for b, (k, v, count) in enumerate(zip(keys, values, pages, strict=True)):
            table[b, :count], order = order[:count], order[count:]
            t = torch.arange(len(k))
            page = table[b, t // page_size].long()
            k_pages[page, t % page_size], v_pages[page, t % page_size] = k, v
        starts = torch.tensor([0, *(len(x) for x in q)]).cumsum(0)
        (y,) = self.case(
            pool,
            q=torch.cat(q),
            block_table=table,
            seq_lens=torch.tensor(lengths, dtype=torch.int32),
            q_start=starts.int(),
        )
        return y

    def random(self, lengths, counts, seed=0):
        torch.manual_seed(seed)
        dtype = DTYPE[self.element]
        q = [torch.randn(n, self.heads * self.d).to(dtype) for n in counts]
        k = [torch.randn(n, self.kv_heads, self.d).to(dtype) for n in lengths]
        v = [torch.randn(n, self.kv_heads, self.dv).to(dtype) for n in lengths]
        return q, k, v

    def reference(self, q, keys, values):
        return torch.cat([self._sequence(*s) for s in zip(q, keys, values, strict=True)])

    def _sequence(self, q, k, v):
        n, length, group = len(q), len(k), self.heads // self.kv_heads
        q = q.double().reshape(n, self.heads, self.d)
        k, v = (x.double().repeat_interleave(group, 1) for x in (k, v))
        s = torch.einsum("qhd,khd->hqk", q, k) * self.d**-0.5
        s = self.cap * torch.tanh(s / self.cap) if self.cap else s
        position, key = torch.arange(length - n, length)[:, None], torch.arange(length)
        seen = key <= position
        seen &= (key > position - self.window) if self.window else True
        p = s.masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", p, v).flatten(1)


CASES = [
    # heads, kv heads, d, dtype, window, cap, page size, lengths, query tokens
    (9, 3, 64, "bf16", 0, 0.0, 16, [1], [1]),
    (9, 3, 64, "bf16", 0, 0.0, 16, [5, 130, 300], [1, 1, 7]),
    (4, 2, 32, "f32", 0, 0.0, 1, [5, 130, 200], [5, 130, 200]),
    (2, 2, 160, "f32", 0, 0.0, 128, [200, 3, 129], [100, 1, 129]),
    (8, 2, 64, "f32", 50, 5.0, 32, [200, 3, 300], [100, 0, 129]),
    (4, 1, 64, "f32", 200, 0.0, 64, [500], [2]),
    (320, 2, 8, "f32", 0, 0.0, 16, [150], [3]),  # a KV head's queries do not fit one block
]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "d", "element", "window", "cap", "page", "lengths", "counts"), CASES
)
def test_against_pytorch(heads, kv_heads, d, element, window, cap, page, lengths, counts):
    attention = Attention(heads, kv_heads, d, element, window, cap)
    q, k, v = attention.random(lengths, counts)
    y, expected = attention.run(q, k, v, page), attention.reference(q, k, v)
    assert y.dtype == DTYPE[element] and torch.isfinite(y).all()
    assert ((y.double() - expected).abs().max() / expected.abs().max()).item() < TOLERANCE[element]


def test_pages_larger_than_a_stationary_tile():
    attention = Attention(4, 2, 32, chip=replace(Chip.load("npu1-lite"), mx_n=64))
    q, k, v = attention.random([100, 200], [3, 200])
    y, expected = attention.run(q, k, v, 128), attention.reference(q, k, v)
    assert (y.double() - expected).abs().max() < TOLERANCE["f32"] * expected.abs().max()


def test_slot_layout_and_another_chip():
    attention = Attention(4, 2, 32, chip="npu1")
    q, k, v = attention.random([70, 140], [3, 140])
    y, expected = attention.run(q, k, v, 16, layout="slots"), attention.reference(q, k, v)
    assert (y.double() - expected).abs().max() < TOLERANCE["f32"] * expected.abs().max()


@pytest.mark.parametrize("window", [0, 40])
def test_a_token_does_not_depend_on_batch_chunks_or_pages(window):
    """Bit for bit: a prompt whole, in odd chunks, in company, with other pages."""
    attention = Attention(6, 2, 32, window=window)
    (q, other), (k, k2), (v, v2) = attention.random([260, 33], [260, 33])
    whole = attention.run([q], [k], [v], 16)
    assert torch.equal(attention.run([q], [k], [v], 32, layout="slots", seed=7), whole)
    assert torch.equal(attention.run([other, q], [k2, k], [v2, v], 16, seed=3)[33:], whole)
    for lo, hi in ((0, 77), (77, 78), (78, 260)):
        part = attention.run([q[lo:hi]], [k[:hi]], [v[:hi]], 16, seed=lo)
        assert torch.equal(part, whole[lo:hi])
