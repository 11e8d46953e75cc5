"""Chips of a sweep: each compiled for and timed; and what would make a launch faster."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from types import MappingProxyType

from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.pipeline import Compilation
from opennpu.runtime.chip import SCHEMA, Chip, ChipError, ChipTiming
from opennpu.runtime.container import Container
from opennpu.runtime.signature import Signature
from opennpu.runtime.timing import TimedModel, TimingReport

COSTS = frozenset(f.name for f in fields(ChipTiming))
SIZES = frozenset(key for keys in SCHEMA.values() for key in keys) - {"name"}

RELIEFS = MappingProxyType(
    {
        "HBM bandwidth": {"hbm_gbps": 2, "dma_bytes_per_cycle": 2},
        "DMA latency": {"dma_latency_cycles": 0.5},
        "short DMA runs": {"hbm_run_overhead_bytes": 0.5, "dma_run_cycles": 0.5, "dma_index_cycles": 0.5},
        "vector unit": {"vector_lanes": 2, "vector_special_lanes": 2, "vector_startup_cycles": 0.5},
        "scalar loads": {"scalar_load_cycles": 0.5},
        "flags and barriers": {"flag_cycles": 0.5, "barrier_cycles": 0.5},
    }
)
"""Resources and what makes each twice as good. Costs are whole numbers, and a row of a product takes one
cycle already: what all of these together leave is the matrix unit's, or the sequencer's."""

REST = "matrix unit, issue"


@dataclass(frozen=True)
class Launch:
    """Of a language model: new tokens, sequences that share them, tokens of each afterwards."""

    tokens: int
    seqs: int
    context: int

    @classmethod
    def parse(cls, text: str) -> "Launch":
        """`64:64:2048`. Raises ValueError."""
        tokens, seqs, context = map(int, text.split(":"))
        if min(tokens, seqs, context) < 1:
            raise ValueError(f"{text}: tokens, sequences and context must be positive")
        return cls(tokens, seqs, context)

    def __str__(self) -> str:
        phase = f"decode {self.seqs}" if self.tokens == self.seqs else f"prefill {self.tokens}"
        return f"{phase} @ {self.context}"


@dataclass
class Timed:
    """One launch on one chip. gains: the share of its time that each resource, twice as good, would save."""

    report: TimingReport
    tokens: int
    gains: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.report.seconds

    @property
    def limit(self) -> str:
        """The resource that would save most."""
        return max(self.gains, key=self.gains.__getitem__) if self.gains else ""

    def to_dict(self) -> dict:
        names = ("cycles", "seconds", "hbm_gbps", "roofline_ratio", "utilisation")
        out = {name: getattr(self.report, name) for name in names}
        return {**out, "tokens_per_second": self.tokens_per_second, "gains": self.gains, "limit": self.limit}


@dataclass
class Outcome:
    """A chip of the sweep: its changes, and either its launches or why there are none."""

    changes: dict[str, int]
    launches: dict[Launch, Timed] = field(default_factory=dict)
    failure: str = ""


def changed(chip: Chip, changes: dict[str, float]) -> Chip:
    """`chip` with other sizes or costs, by their names in the chip file. Raises ChipError."""
    if unknown := changes.keys() - COSTS - SIZES:
        known = ", ".join(sorted(SIZES | COSTS))
        raise ChipError(f"a chip has no {', '.join(sorted(unknown))}: it has {known}")
    if chip.timing is None:
        raise ChipError(f"the chip {chip.name} has no table `timing`: add one to its file (docs/timing.md)")
    sizes = {key: value for key, value in changes.items() if key in SIZES}
    costs = {key: value for key, value in changes.items() if key in COSTS}
    data = replace(chip, **sizes).to_dict()
    return Chip.from_dict({**data, "timing": {**asdict(chip.timing), **costs}}, chip.name)


def combinations(sweep: dict[str, list[int]]) -> list[dict[str, int]]:
    """Every choice of one value a key."""
    return [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]


def explore(
    archive: Archive,
    base: Chip,
    choices: Iterable[dict[str, int]],
    launches: list[Launch],
    gains: bool,
    errors: tuple[type[Exception], ...],
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Outcome]:
    """Compiles for each chip and times each launch; `progress` is told when a launch is done. One of `errors`
    ends a chip, not the sweep."""
    for changes in choices:
        outcome = Outcome(changes)
        try:
            model = compiled(archive, changed(base, changes))
            for launch in launches:
                outcome.launches[launch] = timed(model, launch, gains)
                progress()
        except errors as error:
            outcome.failure = " ".join(str(error).split()) or type(error).__name__
        yield outcome


def compiled(archive: Archive, chip: Chip, choices: Choices | None = None) -> TimedModel:
    """The archive's program for a chip, without weights. Raises CompileError."""
    run = Compilation(chip, choices=choices or Choices())
    program, signature = run.assemble(run.lower(archive))
    signature["model"] = dict(archive.metadata.get("model", {}))
    return TimedModel(
        Container(Path(chip.name), program, Signature.from_json(json.dumps(signature)), False), chip
    )


def timed(model: TimedModel, launch: Launch, gains: bool) -> Timed:
    """One launch, and what each resource would save."""

    def report(reliefs: Iterable[dict[str, float]]) -> TimingReport:
        costs = asdict(model.chip.timing)
        scaled = {key: int(costs[key] * factor) for relief in reliefs for key, factor in relief.items()}
        return model.on(changed(model.chip, scaled)).batch(launch.tokens, launch.seqs, launch.context)

    own = report([])
    out = Timed(own, launch.tokens)
    if gains:
        for name, relief in RELIEFS.items():
            out.gains[name] = 1 - report([relief]).cycles / own.cycles
        # The part of the time that stays when all others take half.
        out.gains[REST] = max(0.0, 2 * report(RELIEFS.values()).cycles / own.cycles - 1)
    return out
