"""SGLang's hierarchical cache: pages in host memory, of prefixes that have left the chip or will."""

import torch
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from torch import Tensor


def get_mha_host_pool_cls(choose, buffer_info) -> type:
    return OpenNpuHostPool


class OpenNpuHostPool(MHATokenToKVPoolHost):
    """kv_buffer: whole pages as the chip's `OpenNpuKvPool` holds them, [pages, layers, elements of a page].

    SGLang names places by their slots on the host, [tokens], page by page.
    """

    def init_kv_buffer(self) -> Tensor:
        elements = 2 * self.head_num * self.page_size * max(self.head_dim, self.v_head_dim)
        return torch.empty(self.page_num, self.layer_num, elements, dtype=self.dtype)

    def _initialize_transfer_views(self, buffer_info, write_back_staging) -> None:
        """None: the chip's pool moves pages."""

    def backup_from_device_all_layer(self, device_pool, host_indices, device_indices, io_backend):
        self.kv_buffer[self._pages(host_indices)] = device_pool.read_pages(self._pages(device_indices))

    def load_to_device_per_layer(
        self, device_pool, host_indices, device_indices, layer_id, io_backend, *, is_draft=False
    ):
        if layer_id == 0:  # with it all others, by one launch
            device_pool.write_pages(self._pages(device_indices), self.kv_buffer[self._pages(host_indices)])

    def _pages(self, slots: Tensor) -> Tensor:
        return slots[:: self.page_size] // self.page_size
