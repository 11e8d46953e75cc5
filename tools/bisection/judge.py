"""Whether two results of one program differ by more than rounding.

Both are compared with the program in float64. A pass may move roundings (a fusion drops some), so
the two are not equal; but the error of one is no multiple of the other's. The error of an output is
its root mean square, as a fraction of the output's; of few wrong elements among many the largest
tells more, which varies more from rounding to rounding.
"""

from dataclasses import dataclass

import torch
from opennpu.tools.bisection.levels import Results
from torch import Tensor

FACTOR, LARGEST_FACTOR = 4, 16
"""How many times the smaller error the larger may be: of root mean squares, of largest differences."""
FLOOR = {torch.float32: 64 * 2.0**-24, torch.bfloat16: 2 * 2.0**-8}
"""Errors below this say nothing. f32: sums of hundreds of terms in another order and functions of 4 ulp;
bf16: a rounding more or less."""


@dataclass(frozen=True)
class Verdict:
    """The errors (root mean squares) before and after a pass, of the output that changed most."""

    output: str
    before: float
    after: float
    differs: bool


def judge(before: Results, after: Results, exact: Results) -> Verdict:
    """The worst output: one that differs, else the one with the largest error."""
    if before.keys() != after.keys():
        missing = ", ".join(sorted(before.keys() ^ after.keys()))
        return Verdict(missing, 0.0, float("inf"), True)
    verdicts = [_one(name, before[name], after[name], exact[name]) for name in before]
    return max(verdicts, key=lambda v: (v.differs, v.after), default=Verdict("no output", 0.0, 0.0, False))


def _one(name: str, before: Tensor, after: Tensor, exact: Tensor) -> Verdict:
    if before.shape != after.shape or before.dtype != after.dtype:
        return Verdict(name, 0.0, float("inf"), True)
    if not before.is_floating_point():
        wrong = (before != after) & (before == exact)  # where float64 decides otherwise, a rounding decided
        share = float(wrong.double().mean()) if wrong.numel() else 0.0
        return Verdict(name, 0.0, share, bool(wrong.any()))
    floor = FLOOR.get(before.dtype, FLOOR[torch.float32])
    errors = [error(x, exact) for x in (before, after)]
    differs = any(
        max(both) > factor * max(min(both), floor)
        for both, factor in zip(zip(*errors, strict=True), (FACTOR, LARGEST_FACTOR), strict=True)
    )
    return Verdict(name, errors[0][0], errors[1][0], differs)


def error(x: Tensor, exact: Tensor) -> tuple[float, float]:
    """(root mean square, largest difference), each as a fraction of the exact result's.

    inf where one is not finite and the other is, or both are not in different ways.
    """
    x, exact = x.double(), exact.double()
    finite = exact.isfinite()
    if not torch.equal(_not_finite(x), _not_finite(exact)):
        return float("inf"), float("inf")
    if not x.numel():
        return 0.0, 0.0
    off, scale = (torch.where(finite, y, 0) for y in (x - exact, exact))
    tiny = 1e-30
    mean = off.square().mean().sqrt() / scale.square().mean().sqrt().clamp(min=tiny)
    return float(mean), float(off.abs().max() / scale.abs().max().clamp(min=tiny))


def _not_finite(x: Tensor) -> Tensor:
    """0 for what is finite, numbers apart for infinities and NaN."""
    return torch.where(x.isfinite(), 0, x).nan_to_num(nan=2, posinf=1, neginf=-1)
