"""Layers, or all ops, of the compiled program beside the reference: where does the error come in?

Three runs over the same tokens: the reference in float32 (*exact*), the reference in the program's own
dtype (*rounded*), and the chip. A program in bfloat16 rounds as often as the rounded reference does, in
other places: the two errors are of one size, and their ratio is near 1. layer_rows.py says what an error is.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.passes import capture
from opennpu.compiler.passes.capture import INPUT, Captures
from opennpu.runtime.dtypes import DTYPES
from opennpu.tools.validation.layer_rows import LOGITS, Row, Runs
from opennpu.tools.validation.results import Check, Level
from opennpu.tools.validation.subject import PAGE_SIZE, ChipModel, Subject, ValidationError, torch_dtype
from opennpu.tools.validation.traced import Traced
from torch import Tensor

COVERED_REASON = "a layer without a value to compare is not validated"


def validate(
    subject: Subject,
    tokens: Sequence[int],
    ops: bool = False,
    replace: str | None = None,
    reference: Archive | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Level:
    """Compares over the tokens; with `replace`, once more with that layer's output given by the exact
    reference. `reference` is another archive than the program's own."""
    run = partial(_run, subject, tokens, ops, reference, progress)
    plain = run(None, None)
    rows, unit = plain.rows(), "op" if ops else "layer"
    level = Level("layer", [row.check for row in rows])
    level.lines = _table(rows)
    level.data = {"unit": unit, "rows": [row.to_dict() for row in rows]}
    first = next((row for row in rows if not row.check.holds), None)
    level.lines.append(
        f"first {unit} that leaves the bound: {first.title}" if first else f"every {unit} holds its bound"
    )
    level.data["first"] = first and first.title
    if left_out := plain.tokens - rows[-1].tokens:
        level.lines.append(
            f"left out behind other choices, as of experts: {left_out} of {plain.tokens} tokens"
        )
    tell_skipped(level, plain)
    if replace is not None:
        behind = _behind(plain, rows, replace)
        _replaced(level, run(replace, plain.values["exact"]).rows()[behind:], replace)
    return level


def tell_skipped(level: Level, runs: Runs) -> None:
    """What is not compared, by name; a layer of which nothing is fails."""
    skipped, total = runs.skipped(), len(runs.captures.values) + len(runs.captures.skipped)
    level.data["compared"] = {"results": total - len(skipped), "of": total}
    level.data["skipped"] = [vars(s) for s in skipped]
    level.lines.append(f"compared {total - len(skipped)} of {total} results")
    level.lines += [f"  not {s.name}: {s.reason}" for s in skipped]
    if not runs.ops:
        titles = {row["title"] for row in level.data["rows"]}
        lost = [s for s in skipped if f"layer {s.layer}" not in titles]
        names = ", ".join(dict.fromkeys(str(s.layer) for s in lost))
        count = len({s.layer for s in lost})
        level.checks.append(Check("layers that cannot be compared", count, 0, COVERED_REASON, detail=names))


def _run(
    subject: Subject,
    tokens: Sequence[int],
    ops: bool,
    reference: Archive | None,
    progress: Callable[[str], None],
    replace: str | None,
    exact: dict[str, Tensor] | None,
) -> Runs:
    progress("compile with captures" if replace is None else f"compile without the output of layer {replace}")
    select = "ops" if ops else "layers"
    made: list[Captures] = []
    path = subject.work_dir / "captured.npu"
    archive = subject.compile(path, lambda module: made.append(capture.run(module, select, replace)))
    (captures,) = made
    progress("chip")
    model = subject.load(path, len(tokens))
    given = _replacements(model, captures, replace, exact)
    outputs, inputs = model.outputs(tokens, **given)
    chip = {c.name: outputs[c.output][c.row] for c in captures.values}
    names = list(chip)
    path.unlink()
    values = {"chip": {**chip, LOGITS: outputs["logits"]}}
    for which, dtype in _dtypes(subject.dtype).items():
        progress(f"reference, {which}")
        store = KvStore(PAGE_SIZE, model.slots)
        found, logits = Traced(reference or archive, dtype).run(inputs, store, names)
        values[which] = {**found, LOGITS: logits}
    return Runs(ops, captures, values)


def _dtypes(dtype: str) -> dict[str, torch.dtype]:
    rounded = {} if dtype == "fp32" else {"rounded": torch_dtype(dtype)}
    return {"exact": torch.float32, **rounded}


def _replacements(
    model: ChipModel, captures: Captures, replace: str | None, exact: dict[str, Tensor] | None
) -> dict[str, Tensor]:
    if replace is None:
        return {}
    expected = model.program.signature.tensors("input")
    missing = [c.name for c in captures.values if c.layer == replace and c.name not in exact]
    if missing:
        raise ValidationError(
            f"layer {replace} cannot be replaced: the reference has no {', '.join(missing)}"
        )
    return {
        name: exact[name.removeprefix(INPUT)].to(DTYPES[arg.dtype])
        for name, arg in expected.items()
        if name.startswith(INPUT)
    }


def _behind(runs: Runs, rows: Sequence[Row], layer: str) -> int:
    """The number of the first row behind those of what a layer hands on."""
    own = {runs.title(c) for c in runs.captures.values if c.layer == layer}
    return 1 + max((i for i, row in enumerate(rows) if row.title in own), default=len(rows) - 2)


def _replaced(level: Level, rows: Sequence[Row], layer: str) -> None:
    """What replacing a layer's output says of the rows behind it."""
    holds = all(row.check.holds for row in rows)
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
        *_table(rows),
        f"what follows layer {layer}: {verdict}",
    ]
    level.data["replaced"] = {"layer": layer, "holds": holds, "rows": [row.to_dict() for row in rows]}


def _table(rows: Sequence[Row]) -> list[str]:
    width = max(len(row.title) for row in rows)
    lines = [f"{'':{width}}  {'reference':>10} {'chip':>10} {'ratio':>7}"]
    for row in rows:
        mark = "" if row.check.holds else "  <- out of bound"
        rounded = "" if row.rounded is None else f"{row.rounded:.3g}"
        ratio = "" if row.choice or row.ratio is None else f"{row.ratio:.3f}"
        lines.append(f"{row.title:{width}}  {rounded:>10} {row.chip:>10.3g} {ratio:>7}{mark}")
    return lines
