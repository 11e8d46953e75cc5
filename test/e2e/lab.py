"""A compiled model on a device, for experiments with batches."""

import random
from pathlib import Path

from opennpu.runtime.device import Device
from opennpu.runtime.language_model import CachedSequence, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program

DEMO = Path(__file__).parents[2] / "build" / "demo"


class Lab:
    """A loaded program with a KV pool; sequences get their pages in random order on request."""

    def __init__(self, page_size: int = 16, tokens: int = 4096, **device):
        self.program = Program.load(Device(**device), DEMO / "model.npu")
        self.pool = PagePool(self.program.device, self.program.signature.kv, page_size, tokens // page_size)
        self.model = LanguageModel(self.program, self.pool)

    def sequence(self, tokens: int = 0, shuffle: int | None = None) -> CachedSequence:
        """An empty sequence; with a shuffle seed it owns pages for `tokens` tokens in random order."""
        if shuffle is None:
            return CachedSequence()
        pages = self.pool.alloc(self.pool.free_pages)
        random.Random(shuffle).shuffle(pages)
        needed = -(-tokens // self.pool.page_size)
        self.pool.release(pages[needed:])
        return CachedSequence(pages=pages[:needed])
