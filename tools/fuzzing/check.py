"""One random graph on every level: PyTorch, the interpreters of `npu` and `npu_tile`, both engines.

The bound. Float64 gives the result R. PyTorch again in float64, with every intermediate result moved at
random by up to NOISE times the error of one operation of its dtype and rounded to it, shows how far errors
of that size reach: the graph's own condition. An element may be off by SPREAD times what the largest of
RUNS such runs shows in its row, and by ROUNDINGS errors of its own. Integers and bools must be equal
where no run changed them; where all dtypes are integers nothing moves, and all must be equal.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.archive import tensors as values_of
from opennpu.compiler.frontend.importer import bounds, import_program
from opennpu.compiler.interpreters import npu as npu_interpreter
from opennpu.compiler.interpreters import tile_launch
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.pipeline import PIPELINE, stage
from opennpu.dialects import load_all
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.tools.fuzzing.case import ABSOLUTE, ULPS, Case, Noise
from opennpu.tools.fuzzing.models import Pages
from torch import Tensor
from torch_mlir import ir

RUNS, MORE_RUNS = 5, 60
NOISE, SPREAD, ROUNDINGS = (8, 1), 2, 4
HBM_BYTES = 1 << 26
LAUNCH_LIMIT = 60.0  # seconds; most launches take milliseconds


@dataclass(frozen=True)
class Finding:
    """Something wrong with a case: at which level, what kind, and in words."""

    level: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.kind}: {self.text}"


class Refused(Exception):
    """A graph that is not compiled, for a reason that is told: PyTorch's or the compiler's."""


class Graph(torch.nn.Module):
    """A case as a module to export."""

    def __init__(self, case: Case):
        super().__init__()
        self.case = case
        for i, tensor in enumerate(case.parameters()):
            self.register_buffer(f"w{i}", tensor)

    def forward(self, *inputs):
        return self.case.evaluate([*inputs, *self.buffers()])


def check(case: Case) -> Finding | None:
    """The first finding of a case; None when all agree. Raises Refused."""
    try:
        archive = Archive(_exported(case))
        ranges = [bounds(limits) for limits in archive.program.range_constraints.values()]
        levels = compiled(case, archive)
    except CompileError as error:
        raise Refused(str(error).splitlines()[0]) from error
    except Refused:
        raise
    except Exception as error:
        return Finding("compiler", type(error).__name__, str(error)[:2000])
    ran = False
    for time in case.times:
        if any(time < least or time > (most or time) for least, most in ranges):
            continue  # torch.export has concluded something of T
        inputs = case.tensors(time)
        try:
            expected = Expected(case, inputs)
        except (RuntimeError, IndexError):
            continue  # PyTorch itself refuses this T
        ran = True
        for level, run in levels.items():
            try:
                results = run(inputs)
            except Exception as error:
                return Finding(level, type(error).__name__, f"T = {time}: {error}"[:2000])
            if problem := expected.compare(results):
                return Finding(level, "difference", f"T = {time}: {problem}")
    if not ran:
        raise Refused(f"no T of {case.times} is allowed")
    return None


# ---- the levels


def compiled(case: Case, archive: Archive) -> dict[str, Callable[[list[Tensor]], list[Tensor]]]:
    """Level → what runs the case there. Raises CompileError, Refused, and what a defect raises."""
    chip = case.target()
    context = load_all(ir.Context())
    module = import_program(archive, context)
    params = values_of(archive.program)
    levels = {}

    def keep(level: str) -> None:
        text = module.operation.get_asm(enable_debug_info=True)
        held = ir.Module.parse(text)
        names = [f"inputs_{i}" for i in range(len(case.inputs))]
        levels[level] = lambda inputs: _RUN[level.partition(" ")[0]](
            held, dict(zip(names, inputs, strict=True)), params, chip
        )

    with context, ir.Location.unknown():
        for level, passes, label in (
            ("npu", PIPELINE["npu"][:1], "npu converted"),
            ("npu", PIPELINE["npu"][1:], "npu"),
            ("npu_tile", PIPELINE["npu_tile"], "npu_tile"),
            ("npu_isa", PIPELINE["npu_isa"], "npu_isa"),
        ):
            run_pipeline(module, [stage(name, chip) for name in passes])
            if level != "npu_isa":
                keep(label)
        keep("reference")
        keep("native")
    return levels


def _exported(case: Case) -> torch.export.ExportedProgram:
    inputs = tuple(case.tensors(7 if case.is_dynamic else case.times[0]))
    dynamic = tuple(
        {d: torch.export.Dim.AUTO for d, n in enumerate(extents) if n == "T"} for extents, _ in case.inputs
    )
    try:
        program = torch.export.export(
            Graph(case), inputs, dynamic_shapes=(dynamic,) if case.is_dynamic else None, strict=False
        )
    except Exception as error:
        raise Refused(f"torch.export: {str(error).splitlines()[0]}") from error
    if case.is_dynamic and len(program.range_constraints) == 0:
        raise Refused("torch.export made T static")
    return program


def _on_engine(engine: str) -> Callable:
    def run(module, inputs, params, chip):
        return tile_launch.run_on_engine(module, inputs, params, _device(chip, engine), kv=Pages())

    return run


@lru_cache(maxsize=16)
def _device(chip: Chip, engine: str) -> Device:
    return Device(
        chip,
        engine=engine,
        race_check=engine == "reference",
        hbm_bytes=HBM_BYTES,
        launch_limit=LAUNCH_LIMIT,
    )


def _interpreted(module, inputs, params, chip):
    with module.context:
        return npu_interpreter.run(module, inputs, params, kv=Pages())


def _launched(module, inputs, params, chip):
    return tile_launch.run(module, inputs, params, chip, kv=Pages())


_RUN = {
    "npu": _interpreted,
    "npu_tile": _launched,
    "reference": _on_engine("reference"),
    "native": _on_engine("native"),
}


# ---- what is right


class Expected:
    """The results of a case, and how far off each element may be."""

    def __init__(self, case: Case, inputs: Sequence[Tensor]):
        self.case, self.given = case, [*inputs, *case.parameters()]
        self.dtypes = [case.dtypes[i] for i in case.results]
        self.exact = case.evaluate(self.given, Noise(0, 0))
        self.spread = [torch.zeros_like(x, dtype=torch.float64) for x in self.exact]
        self._widen(range(1, RUNS + 1))

    def compare(self, results: Sequence[Tensor]) -> str | None:
        """What is wrong, in words. An element that seems wrong is looked at again with more runs."""
        problem = next(self._problems(results), None)
        if problem:
            self._widen(range(RUNS + 1, MORE_RUNS + 1))
            problem = next(self._problems(results), None)
        return problem

    def _widen(self, seeds: range) -> None:
        for seed in seeds:
            moved = self.case.evaluate(self.given, Noise(NOISE[seed % len(NOISE)], seed))
            for spread, x, exact in zip(self.spread, moved, self.exact, strict=True):
                off = (x.double() - exact.double()).abs()
                torch.maximum(spread, torch.where(off.isnan(), torch.inf, off), out=spread)

    def _problems(self, results: Sequence[Tensor]) -> Iterator[str]:
        if len(results) != len(self.exact):
            yield f"{len(results)} results, not {len(self.exact)}"
            return
        for i, (got, exact, spread, dtype) in enumerate(
            zip(results, self.exact, self.spread, self.dtypes, strict=True)
        ):
            if got.dtype != dtype or got.shape != exact.shape:
                yield f"result {i} is {got.dtype} {list(got.shape)}, not {dtype} {list(exact.shape)}"
                continue
            wrong = self._wrong(got, exact, spread, dtype)
            if wrong.any():
                at = tuple(wrong.nonzero()[0].tolist())
                allowed = float(self._allowed(exact, spread, dtype)[at])
                yield (
                    f"result {i}, {int(wrong.sum())} of {wrong.numel()} elements; at {list(at)} "
                    f"{got[at].item()} for {exact[at].item()} (± {allowed:.3g})"
                )

    def _wrong(self, got: Tensor, exact: Tensor, spread: Tensor, dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return (got != exact) & (spread == 0)
        same = (got.double() == exact) | (got.isnan() & exact.isnan())
        off = (got.double() - exact).abs()
        unsure = spread.isinf() | ~exact.isfinite() & (spread > 0)
        return ~same & ~unsure & ~(off <= self._allowed(exact, spread, dtype))

    @staticmethod
    def _allowed(exact: Tensor, spread: Tensor, dtype: torch.dtype) -> Tensor:
        if not dtype.is_floating_point:
            return torch.zeros_like(exact, dtype=torch.float64)
        row = spread.amax(-1, keepdim=True) if spread.dim() and spread.numel() else spread
        return SPREAD * row + ROUNDINGS * (ULPS[dtype] * exact.abs() + ABSOLUTE * 0.01)
