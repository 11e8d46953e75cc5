"""Cyclic garbage collection, off while something is compiled."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_gc() -> Iterator[None]:
    """Nothing is collected inside, also as a decorator.

    Loading PyTorch and a graph makes millions of objects that stay; the collector walks
    them again and again, a third of npu-compile's time, and finds nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
