"""Every op alone, on the chip and in PyTorch in float64."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from opennpu.compiler.pipeline import Compilation
from opennpu.dialects import load_all
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.tools.validation import op_cases, op_random
from opennpu.tools.validation.one_op import Case, run
from opennpu.tools.validation.op_bounds import BOUNDS
from opennpu.tools.validation.results import TINY, Check, Level, relative_error
from opennpu.tools.validation.subject import Subject
from torch import Tensor
from torch_mlir import ir

BITS = {torch.float32: 23, torch.bfloat16: 7}
"""Of the fraction of a dtype."""
HBM = 1 << 30  # bytes: a case is small


@dataclass
class Kind:
    """The worst of all cases of an op in a dtype; `share` is the error over the bound."""

    op: str
    dtype: str
    cases: int = 0
    ulp: float = 0.0  # of the exact value
    relative: float = 0.0  # of norms
    error: float = 0.0  # as the bound counts it
    bound: float = 0.0
    share: float = -1.0
    unit: str = ""
    reason: str = ""
    where: str = ""


def validate(
    subject: Subject | None, seed: int = 0, progress: Callable[[str], None] = lambda stage: None
) -> Level:
    """Over the shapes of the subject's model, where there is one, and random ones."""
    target, engine, threads = (
        (subject.target, subject.engine, subject.threads) if subject else ("npu1-lite", "native", None)
    )
    device = Device(Chip.load(target), engine=engine, threads=threads, hbm_bytes=HBM)
    kinds: dict[tuple[str, str], Kind] = {}
    done = 0
    module = _module(subject, progress) if subject else None
    for case, context in _cases(module, seed):
        done += 1
        progress(f"{case.label} {case.dtype}, case {done}")
        measured = measure(case, *run(case, device, context))
        kind = kinds.setdefault((case.label, case.dtype), measured)
        _merge(kind, measured)
    ordered = sorted(kinds.values(), key=lambda kind: -kind.share)
    level = Level("op", [_check(kind) for kind in ordered])
    skipped = op_cases.left_out(module) if module else []
    level.data = {"cases": done, "kinds": [asdict(kind) for kind in ordered], "skipped": skipped}
    level.lines = [f"{done} cases of {len(kinds)} kinds; nearest to their bounds:", *_table(ordered[:12])]
    level.lines += [f"not run alone: {s['count']} {s['name']}: {s['reason']}" for s in skipped]
    return level


def measure(case: Case, found: list[Tensor], exact: list[Tensor]) -> Kind:
    """The worst of the results."""
    bound = BOUNDS[case.label]
    kind = Kind(case.label, case.dtype, 1, bound=bound.ulps(case.dtype, case.counts))
    kind.unit, kind.reason = "ulp of the row" if bound.row else "ulp", bound.reason(case.dtype)
    kind.where = f"{case.origin}: " + ", ".join(str(list(value.shape)) for value in case.values)
    kind.where += "".join(f"; {name} = {count}" for name, count in case.counts.items())
    for x, e in zip(found, exact, strict=True):
        if x.is_floating_point():
            kind.ulp = max(kind.ulp, ulps(x, e, bound.absolute))
            kind.error = max(kind.error, ulps(x, e, bound.absolute, bound.row))
            kind.relative = max(kind.relative, relative_error(x, e))
        elif not torch.equal(x.long(), e.long()):
            kind.error = kind.ulp = kind.relative = math.inf
    if kind.bound:
        kind.share = kind.error / kind.bound
    else:
        kind.share = math.inf if kind.error else 0.0
    return kind


def ulps(x: Tensor, exact: Tensor, absolute: float, row: bool = False) -> float:
    """The largest error beyond `absolute`, in units in the last place of x's dtype: of the exact value, or of
    the greatest of its row (of the root mean square of all, where that is more). Equal infinities and two
    that are no number have none."""
    wide = x.double()
    error = (wide - exact).abs()
    error[(wide == exact) | (wide.isnan() & exact.isnan())] = 0
    scale = exact.abs()
    error = (error - absolute).clamp_min(0)
    if not error.numel():
        return 0.0
    if row and scale.dim():
        typical = scale.square().mean().sqrt().nan_to_num()
        scale = scale.amax(-1, keepdim=True).clamp_min(typical).expand_as(scale)
    exponent = scale.nan_to_num(nan=1.0, posinf=1.0).clamp_min(TINY).log2().floor()
    return float((error / (exponent - BITS[x.dtype]).exp2()).nan_to_num(nan=math.inf).max())


def _module(subject: Subject, progress) -> ir.Module:
    progress("shapes of the model")
    return Compilation(Chip.load(subject.target)).lower(subject.load_archive(), "npu")


def _cases(module: ir.Module | None, seed: int) -> Iterator[tuple[Case, ir.Context]]:
    if module:
        yield from ((case, module.context) for case in op_cases.of_model(module, seed))
    context = load_all(ir.Context())
    yield from ((case, context) for case in op_random.at_random(seed))


def _merge(kind: Kind, other: Kind) -> None:
    if kind is other:
        return
    kind.cases += 1
    kind.ulp, kind.relative = max(kind.ulp, other.ulp), max(kind.relative, other.relative)
    if other.share > kind.share:
        kind.error, kind.bound, kind.share, kind.where = other.error, other.bound, other.share, other.where


def _check(kind: Kind) -> Check:
    return Check(
        f"{kind.op} {kind.dtype} ({kind.unit})", kind.error, kind.bound, kind.reason, detail=kind.where
    )


def _table(kinds: list[Kind]) -> list[str]:
    lines = [f"{'':24} {'ulp':>9} {'relative':>9} {'error':>9} {'bound':>9}"]
    for k in kinds:
        figures = f"{k.ulp:>9.3g} {k.relative:>9.2g} {k.error:>9.3g} {k.bound:>9.3g} {k.unit}"
        lines.append(f"{k.op + ' ' + k.dtype:24} {figures}")
    return lines
