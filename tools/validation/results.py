"""What a level of the validation found: figures with their bounds, and what the report draws."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

TINY = 2.0**-126
"""The least normal float32: what stands for a norm of 0."""


@dataclass(frozen=True)
class Check:
    """A figure and the bound that it must hold, with the reason for the bound."""

    name: str
    value: float
    bound: float
    reason: str
    at_least: bool = False  # else at most
    detail: str = ""  # what a reader should know when it fails

    @property
    def holds(self) -> bool:
        """A figure that is no number holds nothing."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "ok  " if self.holds else "FAIL"
        detail = f"  ({self.detail})" if self.detail else ""
        return f"{verdict} {self.name}: {figure(self.value)} {sign} {figure(self.bound)}{detail}"


@dataclass
class Level:
    """A level's outcome. `lines` are for the terminal, `data` for the report; see report.html."""

    name: str
    checks: list[Check] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    """Why the level could not be done; it then has no figures, and does not hold."""

    @property
    def holds(self) -> bool:
        return not self.error and all(check.holds for check in self.checks)

    def to_dict(self) -> dict:
        """For JSON, which has no infinities."""
        checks = [{**asdict(check), "holds": check.holds} for check in self.checks]
        return finite({**asdict(self), "checks": checks, "holds": self.holds})


def finite(value: Any) -> Any:
    """Numbers that JSON cannot tell become None."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def relative_error(x: Tensor, exact: Tensor) -> float:
    """‖x − exact‖ / ‖exact‖ in float64; 0 for two that are equal, infinite where x has no numbers."""
    x, exact = x.double(), exact.double()
    difference, norm = float((x - exact).norm()), float(exact.norm())
    if math.isnan(difference):
        return math.inf
    return difference / norm if norm else (0.0 if difference == 0 else math.inf)


def error_of_tokens(x: Tensor, exact: Tensor) -> float:
    """Of [tokens, n]: the root mean square of ‖x − exact‖ / ‖exact‖ of each row; infinite for no numbers."""
    x, exact = x.double(), exact.double()
    error = (x - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(TINY)
    value = float(error.square().mean().sqrt())
    return math.inf if math.isnan(value) else value


def top1_agreement(x: Tensor, reference: Tensor) -> float:
    """How often the greatest of a row is at the same place."""
    return float((x.argmax(-1) == reference.argmax(-1)).float().mean())


def figure(value: float) -> str:
    return f"{value:.4g}"
