"""The paged KV memory: pages with reference counts, owned by the runtime."""

import numpy as np
import torch
from opennpu.runtime.device import Device
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.signature import ITEMSIZE, KvSpec

try:
    from opennpu.runtime._core import PagePool as _PagePool
except ImportError as error:
    raise ImportError("the compiled part of opennpu.runtime is missing") from error


class PagePool:
    """`pages` pages of `page_size` tokens (a divisor of 128) for a model's KV.

    layout: "paged" (layer, page: K then V, each [head][token][dim]) or "slots" (layer: K then V,
    each [slot][head][dim]; the views can be flattened to slots). Raises NpuError: out_of_memory
    when the HBM is too small, invalid_argument.
    """

    def __init__(self, device: Device, kv: KvSpec, page_size: int, pages: int, layout: str = "paged"):
        self.device, self.kv, self.page_size, self.pages = device, kv, page_size, pages
        self._core = _PagePool(
            device.core,
            layers=kv.layers,
            kv_heads=kv.kv_heads,
            head_dim=kv.head_dim,
            v_head_dim=kv.v_head_dim,
            element_bytes=ITEMSIZE[kv.dtype],
            page_size=page_size,
            pages=pages,
            layout=layout,
        )
        self.strides: dict[str, int] = self._core.strides()
        self._v_offset: int = self._core.v_offset
        self.memory = self._core.memory

    @property
    def slots(self) -> int:
        return self.pages * self.page_size

    @property
    def free_pages(self) -> int:
        return self._core.free_pages

    def alloc(self, count: int) -> list[int]:
        """Takes `count` pages with one reference each; all or none. NpuError when too few are free."""
        return self._core.alloc(count)

    def retain(self, pages: list[int]) -> None:
        """One more reference to each page. NpuError when one is not in use."""
        self._core.retain(pages)

    def release(self, pages: list[int]) -> None:
        """One reference less; the last one frees the page. NpuError, and no effect, on a double free."""
        self._core.release(pages)

    def references(self, page: int) -> int:
        return self._core.references(page)

    def launch_values(self) -> dict[str, object]:
        """The `kv` launch arguments by field; a buffer is (buffer, offset, bytes)."""
        return {
            "k_base": (self.memory, 0, self.memory.bytes),
            "v_base": (self.memory, self._v_offset, self.memory.bytes - self._v_offset),
            **self.strides,
            "page_size": self.page_size,
            "slots": self.slots,
        }

    def views(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer where they lie: [pages, page_size, kv_heads, head_dim]."""
        if not 0 <= layer < self.kv.layers:
            raise IndexError(f"layer {layer} of {self.kv.layers}")
        item = ITEMSIZE[self.kv.dtype]
        whole = torch.from_numpy(self.memory.numpy()).view(DTYPES[self.kv.dtype])
        strides = [self.strides[f"{name}_stride"] // item for name in ("page", "token", "head")]
        base = layer * self.strides["layer_stride"] // item

        def view(offset: int, dim: int) -> torch.Tensor:
            shape = (self.pages, self.page_size, self.kv.kv_heads, dim)
            return whole.as_strided(shape, (*strides, 1), base + offset)

        return view(0, self.kv.head_dim), view(self._v_offset // item, self.kv.v_head_dim)

    def export_pages(self, pages: list[int]) -> np.ndarray:
        """A copy of pages in use, uint8 [len(pages), page bytes], the same for every layout."""
        return self._core.export_pages(pages)

    def import_pages(self, pages: list[int], data: np.ndarray) -> None:
        """Fills pages in use with what `export_pages` of a pool of the same geometry gave."""
        self._core.import_pages(pages, data)
