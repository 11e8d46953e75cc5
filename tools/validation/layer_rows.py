"""Three runs of one model, layer by layer or op by op: the errors, and what cannot be compared.

The error of a layer is the root mean square over the tokens of each token's relative error: tokens whose
activations are a hundred times those of others, as the first one's often are, would else decide alone.

A choice, as of experts, is a result in integers. Where two are nearly as good, a rounding decides, and all
that follows differs. Of a choice the share of tokens counts that choose otherwise than in the exact run, and
behind it these tokens are left out, where others are left.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from opennpu.compiler.passes.capture import Captured, Captures, Skipped
from opennpu.tools.validation.results import Check, error_of_tokens
from torch import Tensor

RATIO = 2.0
RATIO_REASON = (
    "both round to bfloat16 as often, in other places: errors of one size. What is wrong, such as a weight, "
    "an index or a formula, moves a value by far more than its roundings"
)
SINGLE = 3e-5
SINGLE_REASON = (
    "the same sums of some hundred to thousand terms in another order, in float32: some ten ulp (6e-8) "
    "a product, which add up through the layers"
)
CHOICE_REASON = (
    "near ties fall either way: the share of tokens for which PyTorch in the program's dtype chooses "
    "otherwise, and three times the square root of their number (of 1 at least)"
)
LOGITS = "logits"


@dataclass(frozen=True)
class Row:
    """The errors of one layer or op, relative to the exact reference, over so many tokens; of a choice the
    shares of tokens. `rounded` is None where the program computes in float32."""

    title: str
    rounded: float | None
    chip: float
    tokens: int
    choice: bool = False

    @property
    def ratio(self) -> float | None:
        if self.rounded is None:
            return None
        return self.chip / self.rounded if self.rounded else (1.0 if self.chip == 0 else math.inf)

    @property
    def check(self) -> Check:
        if self.choice:
            theirs = self.rounded or 0.0
            bound = theirs + 3 * math.sqrt(max(1.0, theirs * self.tokens)) / self.tokens
            return Check(self.title, self.chip, bound, CHOICE_REASON, detail="a share of the tokens")
        if self.ratio is None:
            return Check(self.title, self.chip, SINGLE, SINGLE_REASON)
        return Check(self.title, self.ratio, RATIO, RATIO_REASON, detail=f"error {self.chip:.3g}")

    def to_dict(self) -> dict:
        return vars(self) | {"ratio": None if self.choice else self.ratio, "holds": self.check.holds}


@dataclass(frozen=True)
class Runs:
    """The values by `path#r`, and the logits, of the runs `exact`, `rounded` (not where the program computes
    in float32) and `chip`; of every op where `ops`, else of what layers hand on."""

    ops: bool
    captures: Captures
    values: Mapping[str, Mapping[str, Tensor]]

    @property
    def tokens(self) -> int:
        return len(self.values["exact"][LOGITS])

    def rows(self) -> list[Row]:
        """A row for each layer, or each op, in program order."""
        groups: dict[str, list[str]] = {}
        kept: dict[str, Tensor] = {}
        rows: dict[str, Row] = {}
        keep = torch.ones(self.tokens, dtype=torch.bool)
        for c in self.captures.values:
            title = self.title(c)
            if self._why_alone(c.name):
                continue
            if self._is_choice(c.name):
                row, keep = self._choice(c.name, keep)
                if title:
                    rows[title] = row
            elif title:
                groups.setdefault(title, []).append(c.name)
                rows[title], kept[title] = None, keep
        for title, names in groups.items():
            rows[title] = self._row(title, names, kept[title])
        return [*rows.values(), self._row(LOGITS, [LOGITS], keep)]

    def title(self, captured: Captured) -> str:
        """Of its row; none for a choice beside what layers hand on."""
        if self.ops:
            return captured.name
        return f"layer {captured.layer}" if captured.layer is not None else ""

    def skipped(self) -> list[Skipped]:
        """What is not compared: not captured, or without a counterpart in the reference."""
        alone = [Skipped(c.name, c.layer, self._why_alone(c.name)) for c in self.captures.values]
        return [*self.captures.skipped, *(s for s in alone if s.reason)]

    def _why_alone(self, name: str) -> str:
        exact, chip = self.values["exact"], self.values["chip"][name]
        if name not in exact:
            return "the traced program has no such result, or nobody reads it there"
        if chip.shape != exact[name].shape:
            return f"the chip's has the shape {list(chip.shape)}, the reference's {list(exact[name].shape)}"
        if not chip.dim() or (not self.ops and len(chip) != self.tokens):
            return f"it has no row for each token: its shape is {list(chip.shape)}"
        return ""

    def _is_choice(self, name: str) -> bool:
        exact = self.values["exact"][name]
        return not exact.is_floating_point() and len(exact) == self.tokens

    def _choice(self, name: str, keep: Tensor) -> tuple[Row, Tensor]:
        """Its row, and the tokens that all runs choose alike for."""
        exact = self.values["exact"][name].flatten(1)
        parted = {run: (v[name].flatten(1) != exact).any(1) for run, v in self.values.items()}
        shares = {run: float(other[keep].float().mean()) for run, other in parted.items()}
        row = Row(name, shares.get("rounded"), shares["chip"], int(keep.sum()), choice=True)
        left = keep & ~torch.stack(list(parted.values())).any(0)
        return row, left if left.any() else keep

    def _row(self, title: str, names: Sequence[str], keep: Tensor) -> Row:
        def of(run: str) -> Tensor:
            rows = torch.cat([self.values[run][name].double().flatten(1) for name in names], 1)
            return rows[keep] if len(rows) == len(keep) else rows

        errors = {run: error_of_tokens(of(run), of("exact")) for run in self.values if run != "exact"}
        return Row(title, errors.get("rounded"), errors["chip"], int(keep.sum()))
