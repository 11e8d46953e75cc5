"""SGLang's allocator, request table and radix cache over our KV pool, in any order of a scheduler's steps.

After every step each page is free, in the radix cache, or one request's alone; what the cache holds locked is
what requests refer to; and every place of a request holds the key and value of its token.
"""

import os
from array import array
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

os.environ.setdefault("SGLANG_PLATFORM", "opennpu")

from opennpu.sglang_integration.kv_pool import OpenNpuKvPool
from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req
from sglang.srt.mem_cache.allocation import alloc_for_decode, alloc_for_extend
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator, TokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.platforms import current_platform
from sglang.srt.runtime_context import SpawnRanks, publish
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs

DEVICE = "opennpu"
ROWS, LONGEST = 6, 96  # requests at once, tokens of one
STEM = [5, 3, 8, 1] * 10
PROMPTS = [STEM, STEM[:18] + [9] * 30, STEM[:33] + [2] * 20, [7] * 40]
"""The prompts are their beginnings, so that many share pages."""


class Layer:
    layer_id = 0


class Scheduler(RuleBasedStateMachine):
    """Requests are extended in chunks, decoded, finished, aborted, retracted, put away and brought back."""

    page_size, pages = 16, 12

    def __init__(self):
        super().__init__()
        publish(
            ServerArgs(model_path="none", device=DEVICE, attention_backend=DEVICE),
            role="scheduler",
            ranks=SpawnRanks(world_rank=0, gpu_id=0),
        )
        size, dtype = self.page_size * self.pages, torch.float32
        self.pool = OpenNpuKvPool(
            size=size,
            page_size=self.page_size,
            dtype=dtype,
            head_num=1,
            head_dim=4,
            layer_num=1,
            device=DEVICE,
            enable_memory_saver=False,
        )
        paged = current_platform.get_paged_allocator_cls() or PagedTokenToKVPoolAllocator
        if self.page_size > 1:
            self.allocator = paged(size, self.page_size, dtype, DEVICE, self.pool, need_sort=False)
        else:
            self.allocator = TokenToKVPoolAllocator(size, dtype, DEVICE, self.pool, need_sort=False)
        self.rows = ReqToTokenPool(ROWS, LONGEST, DEVICE, enable_memory_saver=False)
        self.cache = UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=self.rows,
                token_to_kv_pool_allocator=self.allocator,
                page_size=self.page_size,
                tree_components=(ComponentType.FULL,),
            )
        )
        self.waiting: list[Req] = []
        self.running: list[Req] = []
        self.made = 0

    # ---- what the scheduler does

    @precondition(lambda self: len(self.waiting) + len(self.running) < ROWS)
    @rule(prompt=st.sampled_from(PROMPTS), length=st.sampled_from([1, 15, 16, 20, 33, 48]))
    def arrive(self, prompt, length):
        self.made += 1
        ids = array("q", prompt[:length])
        self.waiting.append(Req(f"r{self.made}", "", ids, SamplingParams(max_new_tokens=LONGEST)))

    @precondition(lambda self: self.waiting)
    @rule(chunk=st.integers(1, 40), which=st.integers(0, ROWS))
    def extend(self, chunk, which):
        """The next tokens of a waiting request; after the last of its prompt it runs."""
        request = self.waiting[which % len(self.waiting)]
        begun = request.kv.holds_kv
        request.init_next_round_input(None if begun else self.cache)
        whole = len(request.full_untruncated_fill_ids)
        request.extend_end = min(whole, request.prefix_len + chunk)
        if not begun:
            request.lock = self.cache.lock(request.last_node)
        if not self.fits(request.extend_len):
            if not begun:
                self.cache.unlock(request.lock)
                request.lock = None
            return
        end = torch.tensor([request.extend_end])
        slots, *_ = alloc_for_extend(self.batch([request], end))
        self.write(request.get_fill_ids(), request.prefix_len, slots)
        checkpoint_kv_cache(request, self.cache)
        if request.extend_end == whole:
            request.output_ids.append(1)
            self.waiting.remove(request)
            self.running.append(request)

    @precondition(lambda self: self.running)
    @rule(mask=st.integers(1, 2**ROWS - 1))
    def decode(self, mask):
        """One more token of some of those that run."""
        chosen = [
            r for i, r in enumerate(self.running) if mask >> i & 1 and r.kv.kv_allocated_len < LONGEST - 1
        ]
        if not chosen or not self.fits(len(chosen)):
            return
        lengths = torch.tensor([r.kv.kv_allocated_len for r in chosen])
        slots = alloc_for_decode(self.batch(chosen, lengths), 1)
        for request, slot in zip(chosen, slots, strict=True):
            request.refresh_fill_ids()
            ids = request.full_untruncated_fill_ids
            self.write(ids, len(ids) - 1, slot[None])
            request.output_ids.append(len(request.output_ids) % 3)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, ROWS))
    def finish(self, which):
        request = self.running.pop(which % len(self.running))
        request.finished_reason = FINISH_LENGTH(len(request.output_ids))
        release_kv_cache(request, self.cache, checkpoint=True)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, ROWS))
    def abort_in_the_prompt(self, which):
        request = self.waiting.pop(which % len(self.waiting))
        if request.kv.holds_kv:
            release_kv_cache(request, self.cache, checkpoint=False)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, ROWS))
    def retract(self, which):
        request = self.running.pop(which % len(self.running))
        release_kv_cache(request, self.cache, checkpoint=False)
        request.reset_for_retract()
        self.waiting.append(request)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, ROWS))
    def put_away_and_bring_back(self, which):
        """To the host; the pages are overwritten before they return."""
        request = self.running[which % len(self.running)]
        slots = self.rows.req_to_token[request.kv.req_pool_idx, : request.seqlen - 1].to(torch.int64)
        request.offload_kv_cache(self.rows, self.allocator)
        rubbish = torch.full((len(slots), 1, 4), -1.0, device=DEVICE)
        self.pool.set_kv_buffer(Layer, slots, rubbish, rubbish)
        request.load_kv_cache(self.rows, self.allocator)

    @rule(tokens=st.integers(1, 100))
    def evict(self, tokens):
        self.cache.evict(EvictParams(num_tokens=tokens))

    # ---- what must hold

    @invariant()
    def every_page_has_one_owner(self):
        owners = Counter(self.allocator.get_all_free_pages().tolist())
        owners.update(self.cached_pages())
        for request in self.active():
            own = self.row(request)[request.kv.cache_protected_len :]
            owners.update({slot // self.page_size for slot in own})
        assert owners == Counter(range(1, self.pages + 1))
        assert len(self.rows.free_slots) == ROWS - len(self.active())

    @invariant()
    def what_is_referred_to_is_locked(self):
        shared = {slot for r in self.active() for slot in self.row(r)[: r.kv.cache_protected_len]}
        assert {slot // self.page_size for slot in shared} <= set(self.cached_pages())
        assert self.cache.protected_size() == len(shared)
        assert self.cache.evictable_size() == len(self.cached_pages()) * self.page_size - len(shared)

    @invariant()
    def contents_are_those_of_the_tokens(self):
        for request in self.active():
            slots = torch.tensor(self.row(request))
            expected = digests(request.full_untruncated_fill_ids)[: len(slots)]
            for buffer, sign in zip(self.pool.get_kv_buffer(0), (1, -1), strict=True):
                found = buffer.cpu()[slots // self.page_size, slots % self.page_size]
                assert torch.equal(found, sign * expected[:, None, None].expand(-1, 1, 4))

    def teardown(self):
        while self.running:
            self.finish(0)
        while self.waiting:
            self.abort_in_the_prompt(0)
        self.every_page_has_one_owner()
        self.cache.evict(EvictParams(num_tokens=self.allocator.size))
        assert sorted(self.allocator.get_all_free_pages().tolist()) == list(range(1, self.pages + 1))

    # ---- helpers

    def fits(self, tokens: int) -> bool:
        """Whether this many tokens of one request, or one of each of so many, have room, as SGLang counts."""
        room = self.allocator.available_size() + self.cache.evictable_size()
        return tokens + self.page_size * (1 + ROWS) <= room

    def batch(self, requests: list[Req], lengths: torch.Tensor) -> SimpleNamespace:
        """What of a ScheduleBatch the allocation reads."""
        rows = torch.tensor([r.kv.req_pool_idx or 0 for r in requests])
        return SimpleNamespace(
            reqs=requests,
            tree_cache=self.cache,
            req_to_token_pool=self.rows,
            device=DEVICE,
            prefix_lens=[r.prefix_len for r in requests],
            extend_lens=[r.extend_len for r in requests],
            extend_num_tokens=sum(r.extend_len for r in requests),
            seq_lens=lengths.to(DEVICE),
            seq_lens_cpu=lengths,
            req_pool_indices=rows.to(DEVICE),
            req_pool_indices_cpu=rows,
            model_config=SimpleNamespace(is_encoder_decoder=False),
            hisparse_coordinator=None,
            maybe_evict_swa=lambda: None,
            is_dllm=lambda: False,
        )

    def write(self, ids, start: int, slots: torch.Tensor) -> None:
        """What a forward does: keys and values of the tokens from `start` on."""
        rows = digests(ids)[start : start + len(slots), None, None].expand(-1, 1, 4).to(DEVICE)
        self.pool.set_kv_buffer(Layer, slots, rows, -rows)

    def active(self) -> list[Req]:
        return [r for r in (*self.waiting, *self.running) if r.kv.holds_kv]

    def row(self, request: Req) -> list[int]:
        return self.rows.req_to_token[request.kv.req_pool_idx, : request.kv.kv_allocated_len].tolist()

    def cached_pages(self) -> list[int]:
        slots = self.cache.all_values_flatten().tolist()
        return [slot // self.page_size for slot in slots[:: self.page_size]]


def digests(ids) -> torch.Tensor:
    """A number for each token that depends on all tokens up to it; exact in float32."""
    made, state = [], 1
    for token in ids:
        state = (state * 31 + token + 7) % 65521
        made.append(float(state))
    return torch.tensor(made)


class SchedulerOfSingleSlots(Scheduler):
    page_size, pages = 1, 192


TestPages = Scheduler.TestCase
TestPages.settings = settings(max_examples=40, stateful_step_count=40)
TestSingleSlots = SchedulerOfSingleSlots.TestCase
TestSingleSlots.settings = settings(max_examples=15, stateful_step_count=40)


def test_the_allocator_never_hands_out_page_0():
    """What padding writes goes there."""
    machine = Scheduler()
    slots = machine.allocator.alloc(machine.allocator.size)
    assert min(slots.tolist()) == machine.page_size
    assert machine.allocator.alloc(machine.page_size) is None
    with pytest.raises(RuntimeError, match=r"[Oo]ut of memory"):
        machine.waiting.append(Req("r", "", array("q", [1, 2]), SamplingParams()))
        request = machine.waiting[0]
        request.init_next_round_input(machine.cache)
        request.extend_end = 2
        request.lock = machine.cache.lock(request.last_node)
        alloc_for_extend(machine.batch([request], torch.tensor([2])))
