"""Errors of layers from three runs: by hand, and what cannot be compared is told."""

import math

import pytest
import torch
from opennpu.compiler.passes.capture import Captured, Captures, Skipped
from opennpu.tools.validation.layer_level import tell_skipped
from opennpu.tools.validation.layer_rows import LOGITS, Runs
from opennpu.tools.validation.results import Level

TOKENS = 8
ONES = torch.ones(TOKENS, 4)


def runs(ops: bool, captured: list[Captured], exact: dict, rounded: dict, chip: dict) -> Runs:
    """Whose logits are ones, but for what the values say."""
    values = {"exact": exact, "rounded": rounded, "chip": chip}
    return Runs(ops, Captures(captured), {run: {LOGITS: ONES, **v} for run, v in values.items()})


def captured(name: str, layer: str | None) -> Captured:
    return Captured(name, layer, name, 0)


def test_errors_are_of_all_that_a_layer_hands_on():
    """The first result is off by a tenth on the chip, the second by none: √½ of it together."""
    both = [captured("a#0", "0"), captured("b#0", "0")]
    exact = {"a#0": ONES, "b#0": ONES}
    row, logits = runs(
        False, both, exact, {"a#0": ONES * 1.2, "b#0": ONES}, {"a#0": ONES * 1.1, "b#0": ONES}
    ).rows()
    assert (row.title, row.tokens, logits.chip) == ("layer 0", TOKENS, 0)
    assert row.chip == pytest.approx(0.1 / math.sqrt(2)) and row.ratio == pytest.approx(0.5)


@pytest.mark.parametrize("ops", [False, True])
def test_tokens_behind_another_choice_are_left_out(ops):
    """The chip chooses another expert for a token, PyTorch for another: both are left out of what follows."""
    ids = torch.arange(2 * TOKENS, dtype=torch.int32).view(TOKENS, 2)
    chosen = {run: ids.clone() for run in ("exact", "rounded", "chip")}
    chosen["rounded"][1, 0] += 1
    chosen["chip"][5, 1] += 1
    after = {run: ONES.clone() for run in chosen}
    after["exact"][0] += 1
    after["rounded"][1] = 7
    after["chip"][5] = 7
    both = [captured("router#1", None), captured("experts#0", "0")]
    values = [{"router#1": chosen[run], "experts#0": after[run]} for run in ("exact", "rounded", "chip")]
    *choices, row, _ = runs(ops, both, *values).rows()
    assert row.tokens == TOKENS - 2
    assert row.chip == pytest.approx(0.5 / math.sqrt(6)) and row.ratio == pytest.approx(1)
    assert len(choices) == ops
    for choice in choices:
        assert choice.chip == 1 / TOKENS and choice.check.bound == 1 / TOKENS + 3 / TOKENS
        assert choice.check.holds


def test_wrong_choices_fail():
    wrong = torch.arange(TOKENS)[:, None]
    values = [{"router#1": x} for x in (wrong * 0, wrong * 0, wrong)]
    row, logits = runs(True, [captured("router#1", None)], *values).rows()
    assert row.chip == (TOKENS - 1) / TOKENS and not row.check.holds
    assert logits.tokens == 1


def test_what_cannot_be_compared_is_told_and_a_layer_without_any_value_fails():
    found = [captured("a#0", "0"), captured("b#0", "1"), captured("c#0", "2"), captured("d#0", "2")]
    chip = {"a#0": ONES, "b#0": ONES, "c#0": ONES[:, :2], "d#0": ONES[0]}
    exact = {"a#0": ONES, "c#0": ONES, "d#0": ONES[0]}
    three = runs(False, found, exact, exact, chip)
    three.captures.skipped.append(Skipped("npu.matmul of x", "2", "it is within a module"))
    reasons = {s.name: s.reason for s in three.skipped()}
    assert reasons.keys() == {"npu.matmul of x", "b#0", "c#0", "d#0"}
    assert (
        "shape [8, 2], the reference's [8, 4]" in reasons["c#0"] and "no row for each token" in reasons["d#0"]
    )
    level = Level("layer", data={"rows": [row.to_dict() for row in three.rows()]})
    tell_skipped(level, three)
    (check,) = level.checks
    assert (check.value, check.detail, check.holds) == (2, "1, 2", False) or set(check.detail) == set("1, 2")
    assert level.data["compared"] == {"results": 1, "of": 5}
