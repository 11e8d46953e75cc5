"""Our allocator of pages beside SGLang's, from which it differs only in how it computes."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

os.environ.setdefault("SGLANG_PLATFORM", "opennpu")

from opennpu.sglang_integration.allocator import OpenNpuAllocator
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator

PAGES = 12


def pair(page_size: int):
    for cls in (OpenNpuAllocator, PagedTokenToKVPoolAllocator):
        yield cls(PAGES * page_size, page_size, torch.bfloat16, "cpu", None, need_sort=True)


def give(name: str, allocators, *lengths) -> list:
    """What each allocator gives; the two have the same pages left then."""
    given = [getattr(allocator, name)(*lengths) for allocator in allocators]
    ours, sglangs = allocators
    assert torch.equal(ours.free_pages, sglangs.free_pages)
    assert (given[0] is None) == (given[1] is None)
    if given[0] is not None:
        torch.testing.assert_close(*given, rtol=0, atol=0)
    return given[0]


@pytest.mark.parametrize("page_size", [2, 16])
@settings(max_examples=25)
@given(data=st.data())
def test_same_slots_as_sglangs(page_size, data):
    """Prompts of which some go on inside of a page, then single tokens, until pages are lacking."""
    allocators = list(pair(page_size))
    lengths = st.tuples(st.integers(0, 2 * page_size), st.integers(1, 3 * page_size))
    pieces = torch.tensor(data.draw(st.lists(lengths, min_size=1, max_size=6)))
    begun, ends = pieces[:, 0], pieces.sum(1)
    last = torch.where(begun > 0, 7 * page_size + (begun - 1) % page_size, -1)
    slots = give("alloc_extend", allocators, begun, begun, ends, ends, last, int(pieces[:, 1].sum()))
    while slots is not None:
        last = slots[pieces[:, 1].cumsum(0) - 1] if len(slots) > len(ends) else slots
        ends = ends + 1
        slots = give("alloc_decode", allocators, ends, ends, last.int())
        pieces = torch.ones_like(pieces)
    freed = torch.arange(page_size, 3 * page_size)  # two pages come back: they are sorted in when needed
    for allocator in allocators:
        allocator.free(freed)
    give("alloc_decode", allocators, ends, ends, last.int())
