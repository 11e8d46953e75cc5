"""The first pass of the pipeline whose output differs from its input in what it computes."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.importer import import_program
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from opennpu.tools.bisection.judge import Verdict, judge
from opennpu.tools.bisection.levels import (
    FAULTS,
    Results,
    Values,
    level_of,
    run,
    run_exact,
    run_torch,
    text_of,
)
from torch_mlir import ir


@dataclass(frozen=True)
class Step:
    """A pass, the module before it as text, and what became of the results."""

    name: str
    level: str
    before: str
    verdict: Verdict | None
    fault: str = ""

    @property
    def differs(self) -> bool:
        return bool(self.fault) or (self.verdict is not None and self.verdict.differs)


def walk(
    archive: Archive,
    values: Values,
    chip: Chip,
    levels: Sequence[str],
    pipeline: Mapping[str, Sequence[str]] = PIPELINE,
    begin: Callable[[str], None] = lambda name: None,
) -> Iterator[Step]:
    """Every pass in order up to the first that differs; those of other `levels` are not run on values."""
    module = None
    before: Results | None = run_torch(archive, values) if "npu" in levels else None
    exact: Results | None = None
    module = import_program(archive, load_all(ir.Context()))
    for level, names in pipeline.items():
        for name in names:
            begin(name)
            text = text_of(module)
            with module.context, ir.Location.unknown():
                run_pipeline(module, [stage(name, chip)])
            converted = exact is None
            try:
                exact = exact or run_exact(module, values)
            except FAULTS as error:
                yield Step(name, level, text, None, described(error))
                return
            if level not in levels:
                before = None
                continue
            before = before or run(parsed(text, module.context), values, chip)
            right = _integers_of(before, exact) if converted else exact
            step, before = compared(name, level, text, before, module, values, chip, right)
            yield step
            if step.differs:
                return


def _integers_of(before: Results, exact: Results) -> Results:
    """The exact results come from what the conversion made: of its integers only PyTorch's say anything."""
    return {name: x if x.is_floating_point() else before.get(name, x) for name, x in exact.items()}


def compared(name, level, text, before, module, values, chip, exact) -> tuple[Step, Results | None]:
    """The step of a pass that has run, and the results after it."""
    try:
        after = run(module, values, chip)
    except FAULTS as error:
        return Step(name, level, text, None, described(error)), None
    return Step(name, level, text, judge(before, after, exact)), after


def described(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def differs(module: ir.Module, name: str, values: Values, chip: Chip) -> bool:
    """Whether the pass changes what a module at level npu computes: a module that fails after it does.

    Raises FAULTS where the module fails before the pass, or the pass refuses it. Changes the module.
    """
    text = text_of(module)
    before, exact = run(module, values, chip), run_exact(module, values)
    with module.context, ir.Location.unknown():
        run_pipeline(module, [stage(name, chip)])
    level = level_of(module)
    return compared(name, level, text, before, module, values, chip, exact)[0].differs


def still_differs(module: ir.Module, name: str, values: Values, chip: Chip) -> bool:
    """`differs` of a part of a module; False where the part or the pass fails."""
    try:
        return differs(module, name, values, chip)
    except Exception:  # a wrong pass may fail in any way on a part of what it was made for
        return False


def copy_of(archive: Archive) -> Archive:
    """One that the importer may change."""
    return Archive(copy.deepcopy(archive.program), archive.metadata)


def parsed(text: str, context: ir.Context) -> ir.Module:
    with context:
        return ir.Module.parse(text)
