"""SGLang's KV pool as a view of the runtime's pages."""

import logging

import msgspec
import torch
from opennpu.runtime import _torch
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import KvSpec
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, unwrap_write_loc
from torch import Tensor

logger = logging.getLogger("sglang.opennpu")

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class OpenNpuKvPool(MHATokenToKVPool):
    """Keys and values in a `PagePool`; SGLang counts which pages are in use.

    pages: (keys, values), each [layers, pages, page_size, kv_heads, dim], views of chip memory in the
    page pool's layout; page 0 takes what padding writes. k_buffer[layer] and v_buffer[layer] are
    their parts. Slot s of SGLang is the place s mod page_size of page s div page_size.
    rows: the same memory as [layers · pages · 2 · kv_heads · page_size, dim]: keys, then values of a page.
    """

    def _create_buffers_normal(self):
        kv = KvSpec(
            self.layer_num, self.head_num, self.head_dim, self.v_head_dim, DTYPE_NAMES[self.store_dtype]
        )
        index = torch.device(self.device).index or 0
        count = (self.size + self.page_size) // self.page_size
        try:
            self.page_pool = PagePool(Device.from_torch(index), kv, self.page_size, count)
        except NpuError as error:
            raise MemoryError(
                f"{self.size} tokens of keys and values do not fit into the chip's memory: {error}. "
                "Lower --mem-fraction-static or --max-total-tokens"
            ) from error
        logger.info(
            "KV pool of %d tokens in pages of %d: %.0f MB of chip memory",
            self.size, self.page_size, self.page_pool.memory.bytes / 1e6,
        )  # fmt: skip
        self.pages = device_views(self.page_pool, index)
        self.k_buffer, self.v_buffer = (list(pages.unbind()) for pages in self.pages)
        lines = 2 * self.head_num * self.page_size  # of a page
        dim = max(self.head_dim, self.v_head_dim)
        self.rows = self.pages[0].as_strided((self.layer_num * self.page_pool.pages * lines, dim), (dim, 1))

    def _mha_buffer_info(self):
        """For SGLang's pools on the host, which ask for pointers of layers otherwise."""
        return msgspec.structs.replace(super()._mha_buffer_info(), transfer_buffers=lambda: self.pages)

    def wait_for_host_pages(self) -> None:
        """Work queued from now on comes after the loading of pages from the host for the batch at hand."""
        if self.layer_transfer_counter is not None:
            self.layer_transfer_counter.wait_until(self.layer_num - 1)

    def _kv_tokens_per_row(self) -> int:
        return self.page_size

    def set_kv_buffer(self, layer, loc_info, cache_k, cache_v, *scales, layer_id_override=None, **options):
        """Writes rows [T, kv_heads, dim] to the slots that loc_info names."""
        given = [*scales, *options.values()]
        if any(value is not None for value in given):
            raise NotImplementedError("scaled or masked keys and values")
        layer_id = layer.layer_id if layer_id_override is None else layer_id_override
        self._write(layer_id - self.start_layer, unwrap_write_loc(loc_info)[0], cache_k, cache_v)

    def get_cpu_copy(self, indices, mamba_indices=None, req_pool_index=None):
        """Per layer the keys and values of these slots, [slots, kv_heads, dim], on the host."""
        slots = indices.cpu()
        pages, at = (slots // self.page_size).unique(return_inverse=True)
        shape = self.layer_num, 2, self.head_num, self.page_size, self.rows.shape[1]
        copied = self.read_pages(pages).view(-1, *shape)
        rows = copied.transpose(3, 4)[at, :, :, slots % self.page_size]  # [slots, layers, 2, kv_heads, dim]
        keys, values = rows[:, :, 0, :, : self.head_dim], rows[:, :, 1, :, : self.v_head_dim]
        return [[k, v] for k, v in zip(keys.unbind(1), values.unbind(1), strict=True)]

    def load_cpu_copy(self, kv_cache_cpu, indices, mamba_indices=None, req_pool_index=None):
        """Puts what `get_cpu_copy` gave into these slots."""
        for layer, (k, v) in enumerate(kv_cache_cpu):
            self._write(layer, indices, k.to(self.device), v.to(self.device))

    def move_kv_cache(self, tgt_loc, src_loc):
        moved = self.rows.index_select(0, self._row_numbers(src_loc))
        self.rows[self._row_numbers(tgt_loc)] = moved

    def read_pages(self, pages: Tensor) -> Tensor:
        """A copy on the host of whole pages, [pages, layers, elements of a page], by one launch."""
        copied = self._whole_pages().index_select(0, self._page_numbers(pages)).cpu()
        return copied.view(len(pages), self.layer_num, -1)

    def write_pages(self, pages: Tensor, contents: Tensor) -> None:
        """Fills whole pages with what `read_pages` gave."""
        self._whole_pages()[self._page_numbers(pages)] = contents.flatten(0, 1).to(self.device)

    def _whole_pages(self) -> Tensor:
        """The pages of all layers as rows, which DMA moves whole, [layers · pages, elements of a page]."""
        return self.rows.view(self.layer_num * self.page_pool.pages, -1)

    def _page_numbers(self, pages: Tensor) -> Tensor:
        """Rows of `_whole_pages`, those of a page side by side."""
        layers = torch.arange(self.layer_num) * self.page_pool.pages
        return (pages.cpu()[:, None] + layers).flatten().to(self.device)

    def _row_numbers(self, slots: Tensor) -> Tensor:
        """Those of `rows`, for each slot all of its layers', keys' and values' and heads'."""
        slots, lines = slots.cpu(), torch.arange(2 * self.head_num)
        layers = torch.arange(self.layer_num)[:, None] * self.page_pool.pages
        pages = (slots // self.page_size)[:, None, None] + layers  # [slots, layers, 1]
        numbers = (pages * len(lines) + lines) * self.page_size + (slots % self.page_size)[:, None, None]
        return numbers.flatten().to(self.device)

    def _places(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        return slots // self.page_size, slots % self.page_size

    def _write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        place = self._places(slots)
        self.k_buffer[layer][place] = keys.to(self.store_dtype)
        self.v_buffer[layer][place] = values.to(self.store_dtype)


def device_views(pool: PagePool, index: int) -> tuple[Tensor, Tensor]:
    """All keys and values of a pool on `opennpu:index`, [layers, pages, page_size, kv_heads, dim]."""
    kv, dtype, memory = pool.kv, DTYPES[pool.kv.dtype], pool.memory
    raw = _torch.tensor_at(index, memory.address, memory.bytes, memory).view(dtype)
    fields = ("layer_stride", "page_stride", "token_stride", "head_stride")
    strides = [*(pool.strides[field] // dtype.itemsize for field in fields), 1]

    def view(buffer: str, dim: int) -> Tensor:
        offset = pool.launch_values()[buffer][1] // dtype.itemsize
        return raw.as_strided((kv.layers, pool.pages, pool.page_size, kv.kv_heads, dim), strides, offset)

    return view("k_base", kv.head_dim), view("v_base", kv.v_head_dim)
