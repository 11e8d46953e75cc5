"""What runs on the host instead of the chip: counted, and an error where that is asked for."""

from opennpu.runtime import _torch


def fallbacks() -> dict[str, int]:
    """Calls by operator that ran on the host since the start, or since `reset_fallbacks`.

    Not counted is what computes nothing from elements on the chip: creating and filling tensors
    (`arange`, `randn`, `uniform_`), reading a value (`item`), tensors without elements.
    """
    return _torch.fallbacks()[0]


def fallback_reasons() -> dict[str, str]:
    """Why the chip did not run the operators of `fallbacks()`: the reason of the last call of each."""
    return _torch.fallbacks()[1]


def host_calls() -> dict[str, int]:
    """Calls by operator of those whose place is the host (`native.HOST`), which are no fallbacks."""
    return _torch.host_calls()


def reset_fallbacks() -> None:
    """Forgets the calls that were counted, those of `host_calls` too."""
    _torch.reset_fallbacks()


def is_strict() -> bool:
    return _torch.is_strict()


def set_strict(strict: bool) -> None:
    """Whether what would run on the host is an error, as with `OPENNPU_STRICT=1`."""
    _torch.set_strict(strict)
