"""The first pass of the pipeline whose output differs from its input in what it computes."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.importer import import_program
from opennpu.compiler.interpreters.tile_memory import TileFault
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.dialects import load_all
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import NpuError
from opennpu.tools.bisection.judge import Verdict, judge
from opennpu.tools.bisection.levels import Results, Values, level_of, run, run_exact, run_torch, text_of
from torch_mlir import ir

FAULTS = (TileFault, NpuError, CompileError, ir.MLIRError, AssertionError)
"""What running a wrong program may raise."""


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
    before: Results | None = run_torch(archive, values) if "torch" in levels or "npu" in levels else None
    exact: Results | None = None
    module = import_program(archive, load_all(ir.Context()))
    for level, names in pipeline.items():
        for name in names:
            begin(name)
            text = text_of(module)
            with module.context, ir.Location.unknown():
                run_pipeline(module, [stage(name, chip)])
            if exact is None:
                exact = run_exact(module, values)
            if level not in levels:
                before = None
                continue
            before = before or run(parsed(text, module.context), values, chip)
            step, before = compared(name, level, text, before, module, values, chip, exact)
            yield step
            if step.differs:
                return


def compared(name, level, text, before, module, values, chip, exact) -> tuple[Step, Results | None]:
    """The step of a pass that has run, and the results after it."""
    try:
        after = run(module, values, chip)
    except FAULTS as error:
        return Step(name, level, text, None, str(error).splitlines()[0]), None
    return Step(name, level, text, judge(before, after, exact)), after


def still_differs(module: ir.Module, name: str, values: Values, chip: Chip) -> bool:
    """Whether the pass changes what a module at level npu computes; False where it refuses the module."""
    text = text_of(module)
    try:
        before, exact = run(module, values, chip), run_exact(module, values)
        with module.context, ir.Location.unknown():
            run_pipeline(module, [stage(name, chip)])
    except Exception:  # a wrong pass may fail in any way on a part of what it was made for
        return False
    level = level_of(module)
    return compared(name, level, text, before, module, values, chip, exact)[0].differs


def copy_of(archive: Archive) -> Archive:
    """One that the importer may change."""
    return Archive(copy.deepcopy(archive.program), archive.metadata)


def parsed(text: str, context: ir.Context) -> ir.Module:
    with context:
        return ir.Module.parse(text)
