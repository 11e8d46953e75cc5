"""Keys and values on the host, for `opennpu::paged_attention`, whose pages are no argument."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class KvStore:
    """Keys and values of every layer, for running an exported program on the host."""

    page_size: int  # tokens
    slots: int  # tokens in all pages
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def layer(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int, dtype: torch.dtype):
        """The keys [slots, kv_heads, head_dim] and values [slots, kv_heads, v_head_dim]."""
        if layer not in self.layers:
            self.layers[layer] = tuple(
                torch.zeros(self.slots, kv_heads, dim, dtype=dtype) for dim in (head_dim, v_head_dim)
            )
        return self.layers[layer]


@contextmanager
def kv_store(store: KvStore) -> Iterator[KvStore]:
    """Let `opennpu::paged_attention` read and write this store inside the block."""
    _stores.append(store)
    try:
        yield store
    finally:
        _stores.pop()


_stores: list[KvStore] = []


def current_store() -> KvStore:
    """The store of the innermost `kv_store` block; RuntimeError outside of one."""
    if not _stores:
        raise RuntimeError(
            "opennpu::paged_attention needs memory for keys and values: "
            "call the program inside `with opennpu.compiler.frontend.ops.kv_store(...)`"
        )
    return _stores[-1]
