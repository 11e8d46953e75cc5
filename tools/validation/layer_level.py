"""Layers, or all ops, of the compiled program beside the reference: where does the error come in?

Three runs over the same tokens: the reference in float32 (*exact*), the reference in the program's own
dtype (*rounded*), and the chip. A program in bfloat16 rounds as often as the rounded reference does, in
other places: the two errors are of one size, and their ratio is near 1. The error of a layer is the root
mean square over the tokens of each token's relative error: tokens whose activations are a hundred times
those of others, as the first one's often are, would else decide alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.passes import capture
from opennpu.compiler.passes.capture import INPUT, Captured
from opennpu.runtime.dtypes import DTYPES
from opennpu.tools.validation.results import Check, Level, error_of_tokens
from opennpu.tools.validation.subject import PAGE_SIZE, ChipModel, Subject, ValidationError, torch_dtype
from opennpu.tools.validation.traced import Traced
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


@dataclass(frozen=True)
class Runs:
    """The values by `path#r`, of the exact reference, of the rounded one and of the chip, and the logits."""

    captured: list[Captured]
    exact: dict[str, Tensor]
    rounded: dict[str, Tensor] | None  # None where the program computes in float32
    chip: dict[str, Tensor]
    logits: dict[str, Tensor]

    def rows(self, ops: bool) -> list["Row"]:
        """A row for each layer, or each op, in program order."""
        groups: dict[str, list[str]] = {}
        for c in self.captured:
            if c.name in self.exact and self.exact[c.name].shape == self.chip[c.name].shape:
                title = c.name if ops else f"layer {c.layer}"
                groups.setdefault(title, []).append(c.name)
        rows = [
            Row(title, *(self._error(which, names) for which in ("rounded", "chip")))
            for title, names in groups.items()
        ]
        exact = self.logits["exact"]
        rounded = error_of_tokens(self.logits["rounded"], exact) if self.rounded is not None else None
        return [*rows, Row("logits", rounded, error_of_tokens(self.logits["chip"], exact))]

    def _error(self, which: str, names: Sequence[str]) -> float | None:
        values = getattr(self, which)
        if values is None:
            return None
        exact, found = (torch.cat([v[n].double().flatten(1) for n in names], 1) for v in (self.exact, values))
        return error_of_tokens(found, exact)


@dataclass(frozen=True)
class Row:
    """The errors of one layer or op, relative to the exact reference."""

    title: str
    rounded: float | None
    chip: float

    @property
    def ratio(self) -> float | None:
        if self.rounded is None:
            return None
        return self.chip / self.rounded if self.rounded else (1.0 if self.chip == 0 else float("inf"))

    @property
    def check(self) -> Check:
        if self.ratio is None:
            return Check(self.title, self.chip, SINGLE, SINGLE_REASON)
        return Check(self.title, self.ratio, RATIO, RATIO_REASON, detail=f"error {self.chip:.3g}")


def validate(
    subject: Subject,
    tokens: Sequence[int],
    ops: bool = False,
    replace: int | None = None,
    reference: Archive | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Level:
    """Compares over the tokens; with `replace`, once more with that layer's output given by the exact
    reference. `reference` is another archive than the program's own."""
    run = partial(_run, subject, tokens, "ops" if ops else "layers", reference, progress)
    plain = run(None, None)
    rows = plain.rows(ops)
    level = Level("layer", [row.check for row in rows])
    level.lines = _table(rows)
    level.data = {
        "unit": "op" if ops else "layer",
        "rows": [vars(row) | {"ratio": row.ratio} for row in rows],
    }
    first = next((row for row in rows if not row.check.holds), None)
    where = "layer" if not ops else "op"
    level.lines.append(
        f"first {where} that leaves the bound: {first.title}" if first else f"every {where} holds its bound"
    )
    level.data["first"] = first and first.title
    if replace is not None:
        _replaced(level, rows, run(replace, plain.exact).rows(ops), replace)
    return level


def _run(
    subject: Subject,
    tokens: Sequence[int],
    select: str,
    reference: Archive | None,
    progress: Callable[[str], None],
    replace: int | None,
    exact: dict[str, Tensor] | None,
) -> Runs:
    progress("compile with captures" if replace is None else f"compile without the output of layer {replace}")
    captured: list[Captured] = []
    path = subject.work_dir / "captured.npu"
    archive = subject.compile(path, lambda module: captured.extend(capture.run(module, select, replace)))
    progress("chip")
    model = subject.load(path, len(tokens))
    given = _replacements(model, captured, replace, exact)
    outputs, inputs = model.outputs(tokens, **given)
    chip = {c.name: outputs[c.output][c.row] for c in captured}
    names = list(chip)
    path.unlink()
    runs: dict[str, tuple[dict[str, Tensor], Tensor]] = {}
    for which, dtype in _dtypes(subject.dtype).items():
        progress(f"reference, {which}")
        store = KvStore(PAGE_SIZE, model.slots)
        runs[which] = Traced(reference or archive, dtype).run(inputs, store, names)
    values, logits = ({which: run[i] for which, run in runs.items()} for i in (0, 1))
    return Runs(captured, values["exact"], values.get("rounded"), chip, {**logits, "chip": outputs["logits"]})


def _dtypes(dtype: str) -> dict[str, torch.dtype]:
    rounded = {} if dtype == "fp32" else {"rounded": torch_dtype(dtype)}
    return {"exact": torch.float32, **rounded}


def _replacements(
    model: ChipModel, captured: Sequence[Captured], replace: int | None, exact: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    if replace is None:
        return {}
    expected = model.program.signature.tensors("input")
    missing = [c.name for c in captured if c.layer == replace and c.name not in exact]
    if missing:
        raise ValidationError(
            f"layer {replace} cannot be replaced: the reference has no {', '.join(missing)}"
        )
    return {
        name: exact[name.removeprefix(INPUT)].to(DTYPES[arg.dtype])
        for name, arg in expected.items()
        if name.startswith(INPUT)
    }


def _replaced(level: Level, before: Sequence[Row], after: Sequence[Row], layer: int) -> None:
    """What replacing a layer's output says."""
    ends = [i for i, row in enumerate(before) if row.title == f"layer {layer}"]
    behind = range(ends[-1] + 1, len(after)) if ends else range(len(after) - 1, len(after))
    holds = all(after[i].check.holds for i in behind)
    if holds:
        verdict = (
            "holds its bound, as it did"
            if level.holds
            else f"holds its bound now: the error is of layer {layer} or before"
        )
    else:
        verdict = "leaves the bound all the same: the error comes in behind it"
    level.lines += [
        "",
        f"with the output of layer {layer} from the reference:",
        *_table([after[i] for i in behind]),
        f"what follows layer {layer}: {verdict}",
    ]
    level.data["replaced"] = {
        "layer": layer,
        "holds": holds,
        "rows": [vars(after[i]) | {"ratio": after[i].ratio} for i in behind],
    }


def _table(rows: Sequence[Row]) -> list[str]:
    width = max(len(row.title) for row in rows)
    lines = [f"{'':{width}}  {'reference':>10} {'chip':>10} {'ratio':>7}"]
    for row in rows:
        mark = "" if row.check.holds else "  <- out of bound"
        rounded = "" if row.rounded is None else f"{row.rounded:.3g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        lines.append(f"{row.title:{width}}  {rounded:>10} {row.chip:>10.3g} {ratio:>7}{mark}")
    return lines
