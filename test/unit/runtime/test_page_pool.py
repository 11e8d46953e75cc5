"""The page pool against a dictionary of reference counts, and its layouts against torch."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import KvSpec

KV = KvSpec(layers=2, kv_heads=3, head_dim=8, v_head_dim=4, dtype="bf16")
PAGES = 12
DEVICE = Device("npu1-lite", engine="reference", hbm_bytes=4 << 20)
ANY = st.lists(st.integers(-1, PAGES), max_size=6)
"""Pages of which some are free, and some are none."""


def pool(layout: str = "paged", kv: KvSpec = KV, pages: int = PAGES, page_size: int = 16) -> PagePool:
    return PagePool(DEVICE, kv, page_size=page_size, pages=pages, layout=layout)


class Pages(RuleBasedStateMachine):
    """alloc, retain and release in any order, right and wrong; copies to the host and back between them."""

    def __init__(self):
        super().__init__()
        self.pool = pool()
        self.counts: Counter = Counter()
        self.contents: dict[int, int] = {}  # page in use → the byte that fills it
        self.away: list[int] = []  # contents of pages on the host
        self.host = self.pool.export_pages([])

    @rule(count=st.integers(0, PAGES + 2))
    def alloc(self, count):
        free = PAGES - len(self.counts)
        if count > free:
            with pytest.raises(NpuError, match=f"too small: {count} pages asked for, {free} of {PAGES}"):
                self.pool.alloc(count)
        else:
            pages = self.pool.alloc(count)
            assert len(set(pages)) == count and not self.counts.keys() & set(pages)
            self.counts.update(pages)

    @rule(pages=ANY)
    def retain(self, pages):
        if any(page not in self.counts for page in pages):
            with pytest.raises(NpuError, match="retain of page"):
                self.pool.retain(pages)
        else:
            self.pool.retain(pages)
            self.counts.update(pages)

    @precondition(lambda self: self.counts)
    @rule(data=st.data())
    def retain_some_in_use(self, data):
        self.retain(data.draw(self.in_use()))

    @precondition(lambda self: self.counts)
    @rule(data=st.data())
    def release_some_in_use(self, data):
        """The same page may be among them as often as it has references, or once more."""
        self.release(data.draw(self.in_use()))

    @rule(pages=ANY)
    def release(self, pages):
        if any(count > self.counts[page] for page, count in Counter(pages).items()):
            with pytest.raises(NpuError, match="release of page"):
                self.pool.release(pages)
        else:
            self.pool.release(pages)
            self.counts.subtract(pages)
            self.counts = +self.counts
            self.contents = {page: byte for page, byte in self.contents.items() if page in self.counts}

    def in_use(self):
        return st.lists(st.sampled_from(sorted(self.counts)), min_size=1, max_size=6)

    @precondition(lambda self: self.counts)
    @rule(data=st.data(), byte=st.integers(0, 255))
    def fill(self, data, byte):
        page = data.draw(st.sampled_from(sorted(self.counts)))
        self.pool.import_pages([page], np.full_like(self.pool.export_pages([page]), byte))
        self.contents[page] = byte

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def put_away(self, data):
        pages = data.draw(st.lists(st.sampled_from(sorted(self.contents)), max_size=4))
        self.away, self.host = [self.contents[p] for p in pages], self.pool.export_pages(pages)

    @precondition(lambda self: PAGES - len(self.counts) >= len(self.away))
    @rule()
    def bring_back(self):
        pages = self.pool.alloc(len(self.away))
        self.counts.update(pages)
        self.pool.import_pages(pages, self.host)
        self.contents |= dict(zip(pages, self.away, strict=True))

    @invariant()
    def pages_keep_their_contents(self):
        pages = sorted(self.contents)
        data = self.pool.export_pages(pages)
        assert (data == np.array([self.contents[p] for p in pages], np.uint8)[:, None]).all()

    @invariant()
    def counts_agree(self):
        assert self.pool.free_pages == PAGES - len(self.counts)
        assert [self.pool.references(p) for p in range(PAGES)] == [self.counts[p] for p in range(PAGES)]


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=40, stateful_step_count=30)


def test_double_free_is_an_error_and_changes_nothing():
    p = pool()
    a, b = p.alloc(2)
    p.release([a])
    with pytest.raises(NpuError, match=f"release of page {a}, which is free already"):
        p.release([b, a])
    assert p.references(b) == 1


@pytest.mark.parametrize("layout", ["paged", "slots"])
def test_views_follow_the_launch_arguments(layout):
    """Element by element: the address formula of docs/architecture.md."""
    p = pool(layout)
    values = p.launch_values()
    bases = [offset for _, offset, _ in (values["k_base"], values["v_base"])]
    for name, base in zip(("k_base", "v_base"), bases, strict=True):
        assert values[name] == (p.memory, base, p.memory.bytes - base)
    memory = torch.from_numpy(p.memory.numpy()).view(torch.bfloat16)
    for layer in range(KV.layers):
        for view, dim, base in zip(p.views(layer), (8, 4), bases, strict=True):
            assert view.shape == (PAGES, 16, KV.kv_heads, dim)
            view.copy_(torch.randn(view.shape))
            for slot in (0, 5, 16, p.slots - 1):
                for head in range(KV.kv_heads):
                    at = base + layer * values["layer_stride"] + slot // 16 * values["page_stride"]
                    at += slot % 16 * values["token_stride"] + head * values["head_stride"]
                    assert torch.equal(memory[at // 2 : at // 2 + dim], view[slot // 16, slot % 16, head])


def test_slots_layout_flattens_to_slots():
    key, value = pool("slots").views(1)
    assert key.view(-1, KV.kv_heads, 8).data_ptr() == key.data_ptr()
    assert value.flatten(0, 1).data_ptr() == value.data_ptr()


@pytest.mark.parametrize("layout", ["paged", "slots"])
def test_no_two_elements_share_memory(layout):
    p = pool(layout)
    p.memory.numpy()[:] = 0
    for layer in range(KV.layers):
        for view in p.views(layer):
            assert not view.any()
            view.fill_(1)


def test_pages_travel_between_pools_of_different_layout():
    a, b = pool("paged"), pool("slots")
    source, target = a.alloc(5)[2:5], b.alloc(9)[6:9]
    views = [v for layer in range(KV.layers) for v in a.views(layer)]
    for view in views:
        view.copy_(torch.randn(view.shape))
    data = a.export_pages(source)
    assert data.shape == (3, 2 * KV.layers * KV.kv_heads * 16 * 8 * 2)
    b.import_pages(target, data)
    for view, copy in zip(views, (v for layer in range(KV.layers) for v in b.views(layer)), strict=True):
        assert torch.equal(view[source], copy[target])
    assert np.array_equal(b.export_pages(target), data)


@pytest.mark.parametrize("layout", ["paged", "slots"])
def test_pages_of_a_chip_that_hides_its_memory(layout):
    """A round trip through a second pool, where the bytes can be seen."""
    hidden = Device("npu1-lite", hbm_bytes=4 << 20, hide_memory=True)
    a, b = PagePool(hidden, KV, page_size=16, pages=PAGES, layout=layout), pool(layout)
    source, target = a.alloc(4)[1:], b.alloc(3)
    data = np.random.default_rng(0).integers(0, 256, b.export_pages(target).shape).astype(np.uint8)
    a.import_pages(source, data)
    exported = a.export_pages(source)
    b.import_pages(target, exported)
    key, _ = b.views(0)
    # The V rows are narrower than their place, whose rest is carried along.
    assert np.array_equal(exported, data)
    row = torch.from_numpy(data[0, : 8 * 2].copy()).view(torch.bfloat16)
    assert torch.equal(key[target[0], 0, 0].view(torch.int16), row.view(torch.int16))


def test_copies_are_checked():
    p = pool()
    with pytest.raises(NpuError, match="copy of page 3, which is free"):
        p.export_pages([3])
    pages = p.alloc(2)
    with pytest.raises(NpuError, match="import of 2 pages takes uint8"):
        p.import_pages(pages, np.zeros((2, 8), np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"page_size": 48}, "page size must divide 128"),
        ({"page_size": 0}, "page size must divide 128"),
        ({"pages": 0}, "from 1 to 2"),
        ({"pages": 1 << 20}, "out of HBM"),
        ({"layout": "rows"}, 'no KV layout "rows"'),
    ],
)
def test_wrong_pools(change, message):
    with pytest.raises(NpuError, match=message):
        pool(**change)
