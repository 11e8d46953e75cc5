"""A plugin of SGLang that stops the scheduler at a batch that writes to a page of another request.

Before a batch: its tokens' places lie in pages that are neither free nor in the radix cache, and that no
second request of the batch has. After it: nothing but these places (and page 0, for padding) has changed.
"""

import logging
import os
from pathlib import Path

import torch

logger = logging.getLogger("sglang.page_canary")
launches = 0


def environment(folder: Path) -> dict[str, str]:
    """Variables with which SGLang's processes find the plugin, as they would an installed one."""
    described = folder / "plugins" / "page_canary-1.dist-info"
    described.mkdir(parents=True, exist_ok=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: page-canary\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[sglang.srt.plugins]\npage_canary = page_canary:activate\n")
    paths = [described.parent, Path(__file__).parent, os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))}


def activate() -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register("sglang.srt.managers.scheduler.Scheduler.run_batch", watched, HookType.AROUND)


def watched(run_batch, scheduler, batch, *args, **options):
    global launches
    if batch.out_cache_loc is None:
        return run_batch(scheduler, batch, *args, **options)
    torch.opennpu.synchronize()
    pool = scheduler.token_to_kv_pool_allocator.get_kvcache()
    own = batch.out_cache_loc.cpu()
    check_owner(scheduler, batch, set((own // pool.page_size).tolist()))
    before = words(pool).clone()
    result = run_batch(scheduler, batch, *args, **options)
    torch.opennpu.synchronize()
    changed = (words(pool) != before).any(dim=(0, 2, 4)).flatten()
    changed[own] = False
    changed[: pool.page_size] = False
    assert not changed.any(), f"a batch changed the slots {changed.nonzero().flatten().tolist()} of others"
    launches += 1
    logger.info("page canary: %d launches", launches)
    return result


def check_owner(scheduler, batch, written: set[int]) -> None:
    """That each page written is one request's alone."""
    allocator, page_size = scheduler.token_to_kv_pool_allocator, scheduler.page_size
    free = set(allocator.get_all_free_pages().tolist())
    assert not written & free, f"pages {written & free} are free"
    if scheduler.tree_cache.supports_prefix_sharing():
        tree = scheduler.tree_cache.tree_core.walk_for_kv_canary(unlocked_only=False, swa_resident_only=False)
        cached = set((tree.slot_indices // page_size).tolist())
        assert not written & cached, f"pages {written & cached} are in the radix cache"
    rows, seen = scheduler.req_to_token_pool.req_to_token.cpu(), set()
    for request in batch.reqs:
        row = rows[request.kv.req_pool_idx, : request.kv.kv_allocated_len]
        own = set((row // page_size).tolist()) & written
        assert not own & seen, f"pages {own & seen} are of two requests"
        seen |= own
    assert seen == written, f"pages {written - seen} are of no request"


def words(pool) -> torch.Tensor:
    """Keys and values where they lie, as int64 [layers, pages, keys and values of heads, place, words]."""
    pages = pool.page_pool
    memory = torch.from_numpy(pages.memory.numpy()).view(torch.int64)
    return memory.view(pages.kv.layers, pages.pages, 2 * pages.kv.kv_heads, pages.page_size, -1)
