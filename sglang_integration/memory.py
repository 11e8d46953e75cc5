"""What a chip's memory has to hold for a server, told ahead of loading or where it does not fit."""

from collections.abc import Iterable
from math import prod
from pathlib import Path

import torch
from opennpu.runtime.settings import settings, variable
from opennpu.sglang_integration.weight_shapes import shapes

ITEM_BYTES = {"bfloat16": 2, "float32": 4, "float": 4}
STATIC = 0.9
"""--mem-fraction-static where the chip is small: weights and KV pages; the rest is for what launches need."""
SMALL = 8 << 30
"""Bytes of a chip for which SGLang's default is no good: it sets some 4 GiB aside, whatever there is."""

SEGMENT = 20 << 20
"""Bytes that the device's allocator takes for tensors of 1 to 10 MiB."""
MOST_TOKENS = 1 << 40
"""Of a pool: more than any has, so as many requests as there may be."""


def capacity() -> int:
    """Bytes of the chip."""
    return settings().hbm_bytes or settings().load_chip().hbm_bytes


def problem(model: Path, dtype: str) -> str | None:
    """What to say of a model whose weights are more than the chip can hold; None where they may fit."""
    needed = sum(map(prod, _checkpoint(model))) * ITEM_BYTES[dtype]
    return too_small(f"the weights of {model}", needed) if needed > STATIC * capacity() else None


def configure(function, *args, **options):
    """SGLang's sizing of the KV pool. Where no page fits, MemoryError says what has room.

    SGLang's own text gives the fraction at which there is none yet.
    """
    try:
        return function(*args, **options)
    except (ValueError, RuntimeError) as error:
        if "--mem-fraction-static" not in str(error):
            raise
        from sglang.srt.runtime_context import get_schedule

        free, total = torch.opennpu.mem_get_info()
        needed = total - free + _tables(args[0])
        raise MemoryError(no_pages(needed, get_schedule().mem_fraction_static)) from error


def _profile_available_bytes(profile, configurator, *args, **options):
    """SGLang's bytes for KV pages, without what its tables take: it makes them after the sizing."""
    return profile(configurator, *args, **options) - _tables(configurator)


def _tables(configurator) -> int:
    """Bytes of SGLang's table of where each request's tokens lie, and of a segment for smaller ones."""
    requests = configurator.resolve_max_num_reqs(MOST_TOKENS)
    return requests * configurator.model_config.context_len * torch.int32.itemsize + SEGMENT


def no_pages(needed: int, fraction: float) -> str:
    """What to say where weights take `needed` bytes and leave no KV pages of that fraction of the chip."""
    text = f"no KV pages fit into the chip's memory: --mem-fraction-static is {fraction}, and "
    if enough(needed) > capacity():
        text += too_small("weights and tables", needed)
    else:
        text += f"weights and tables take {needed / 1e6:.1f} MB of the chip's {capacity() / 1e6:.1f} MB"
    return text if fraction >= STATIC else f"{text}. Set --mem-fraction-static to {STATIC}"


def enough(needed: int) -> int:
    """Bytes of a chip that has room for `needed` bytes of weights, padding and some KV pages."""
    return (int(needed * 2 / STATIC) >> 20) + 64 << 20


def too_small(what: str, needed: int) -> str:
    """`needed`: bytes of the chip that weights take."""
    return (
        f"{what} take {needed / 1e6:.1f} MB of chip memory or more; the chip has "
        f"{capacity() / 1e6:.1f} MB. Set {variable('hbm_bytes')} to {enough(needed)} or more, or "
        f"{variable('chip')} to a chip with as much memory"
    )


def _checkpoint(model: Path) -> Iterable[list[int]]:
    for file in sorted(model.glob("*.safetensors")):
        yield from shapes(file).values()
