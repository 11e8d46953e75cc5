"""How an `opennpu::` operator is declared, and the checks that the operators share.

All of them are for inference: none has a gradient, and a backward pass through one raises
NotImplementedError once the torch device is loaded. Results are new and contiguous, whatever the
strides of the operands.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.library import Library, register_fake

LIBRARY = Library("opennpu", "FRAGMENT")
FLOATS = (torch.float32, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32)


def operator(schema: str, shapes: Callable) -> Callable[[Callable], Callable]:
    """Registers a function as the implementation of `opennpu::` + schema on the host.

    `shapes` takes the operator's arguments, checks them, and returns empty results; tracing
    calls it, and the host before it computes. What is returned is the operator's overload.
    """

    def register(host: Callable) -> Callable:
        name = schema.partition("(")[0]

        @torch.no_grad()
        def run(*args, **kwargs):
            shapes(*args, **kwargs)
            results = host(*args, **kwargs)
            return results.contiguous() if isinstance(results, Tensor) else tuple(map(_dense, results))

        LIBRARY.define(schema)
        LIBRARY.impl(name, run, "CPU")
        register_fake(f"opennpu::{name}", shapes, lib=LIBRARY)
        overload = getattr(torch.ops.opennpu, name).default
        overload.__doc__ = host.__doc__
        return overload

    return register


def _dense(x: Tensor) -> Tensor:
    return x.contiguous()


# ---- checks; each names the operator and the argument


def check(condition, text: str) -> None:
    """ValueError unless the condition, which may be symbolic, holds."""
    torch._check_value(condition, lambda: text)


def check_dtype(op: str, name: str, x: Tensor, allowed: Sequence[torch.dtype]) -> None:
    """TypeError unless x has one of the dtypes."""
    if x.dtype not in allowed:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        found = str(x.dtype).removeprefix("torch.")
        raise TypeError(f"opennpu::{op}: {name} has dtype {found}, expected {names}")


def check_rank(op: str, name: str, x: Tensor, least: int, most: int | None = None) -> None:
    """ValueError unless x has from `least` to `most` dimensions (None: no limit)."""
    expected = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
    fits = least <= x.dim() and (most is None or x.dim() <= most)
    check(fits, f"opennpu::{op}: {name} has {x.dim()} dimensions, expected {expected}")


def check_shape(op: str, name: str, x: Tensor, expected: Sequence) -> None:
    """ValueError unless x has these extents."""
    text = f"opennpu::{op}: {name} has shape {_show(x.shape)}, expected {_show(expected)}"
    check(x.dim() == len(expected), text)
    for found, extent in zip(x.shape, expected, strict=True):
        check(found == extent, text)


def check_even(op: str, name: str, extent) -> None:
    """ValueError unless the last extent of argument `name` divides by 2."""
    check(extent % 2 == 0, f"opennpu::{op}: the last extent of {name} is {extent}, expected an even number")


def check_one_of(op: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """ValueError unless the value is among the names."""
    check(value in allowed, f"opennpu::{op}: {name} is {value!r}, expected one of {', '.join(allowed)}")


def _show(shape: Sequence) -> str:
    return f"[{', '.join(map(str, shape))}]"
