"""SGLang's allocator of pages with fewer launches: what follows from lengths, the host computes."""

import torch
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
from torch import Tensor


class OpenNpuAllocator(PagedTokenToKVPoolAllocator):
    """Gives the same slots, [tokens] int64 on the device, as SGLang's; None where pages are lacking."""

    def alloc_extend(
        self, prefix_lens, prefix_lens_cpu, seq_lens, seq_lens_cpu, last_loc, extend_num_tokens,
        num_new_pages=None,
    ):  # fmt: skip
        begun = -(-prefix_lens_cpu // self.page_size)  # pages that a prefix has, its last one perhaps in part
        new = -(-seq_lens_cpu // self.page_size) - begun
        taken = self._take(int(new.sum()))
        if taken is None:
            return None
        counts = seq_lens_cpu - prefix_lens_cpu
        request = torch.arange(len(counts)).repeat_interleave(counts)
        position = torch.arange(len(request)) + (seq_lens_cpu - counts.cumsum(0))[request]
        page = position // self.page_size + (new.cumsum(0) - new - begun)[request]  # among the taken ones
        in_prefix = position < (begun * self.page_size)[request]
        if in_prefix.any():
            taken = torch.cat([taken, last_loc // self.page_size])
            page = torch.where(in_prefix, len(taken) - len(counts) + request, page)
        page, place = torch.stack([page, position % self.page_size]).to(self.device, non_blocking=True)
        return taken.index_select(0, page) * self.page_size + place

    def alloc_decode(self, seq_lens, seq_lens_cpu, last_loc):
        beginning = ((seq_lens_cpu - 1) % self.page_size == 0).nonzero()[:, 0]
        taken = self._take(len(beginning))
        if taken is None:
            return None
        slots = last_loc.to(torch.int64) + 1
        if len(beginning):
            slots.index_copy_(0, beginning.to(self.device, non_blocking=True), taken * self.page_size)
        return slots

    def _take(self, count: int) -> Tensor | None:
        """So many free pages."""
        if count > len(self.free_pages):
            self.merge_and_sort_free()
        if count > len(self.free_pages):
            return None
        taken, self.free_pages = self.free_pages[:count], self.free_pages[count:]
        return taken
