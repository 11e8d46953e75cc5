"""What launches of a compiled model would take on the chip: the timing model, docs/timing.md."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from opennpu.runtime.chip import Chip, ChipError
from opennpu.runtime.container import Container
from opennpu.runtime.device import Device
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.language_model import CachedSequence, Chunk, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program, ProgramError

try:
    from opennpu.runtime._core import time_launch
except ImportError as error:
    raise ImportError("the compiled part of opennpu.runtime is missing") from error

ENGINES = ("load", "store", "matrix", "vector")
PAGE_SIZE = 16  # tokens
TOTALS = (
    "cycles",
    "seconds",
    "shared_bytes",
    "hbm_gbps",
    "macs",
    "hbm_bound",
    "matrix_bound",
    "roofline_ratio",
)
"""What every account of a launch tells of it as a whole."""


@dataclass(frozen=True)
class Scope:
    """What a recording keeps: of these cores the slices that lie in [begin, end) cycles, the first `most`."""

    cores: tuple[int, ...]
    begin: int = 0
    end: int = 2**62
    most: int = 100_000

    def to_tuple(self) -> tuple:
        return (list(self.cores), self.begin, self.end, self.most)


class Recording:
    """What happened on some cores, as structured arrays of int64 (runtime/src/timing/recorder.h).

    slices: instructions on units. arrows: index of a slice, index of one that waited for a flag set after it.
    stretches: what all cores did from barrier to barrier, of the whole launch.
    """

    SLICE = ("core", "queue", "shadow", "instruction", "location", "start", "end", "done")
    ARROW = ("from", "to")
    STRETCH = ("location", "begin", "end")

    def __init__(self, slices: bytes, arrows: bytes, stretches: bytes, truncated: bool):
        self.slices = _rows(slices, self.SLICE)
        self.arrows = _rows(arrows, self.ARROW)
        self.stretches = _rows(stretches, self.STRETCH)
        self.truncated = truncated


def _rows(data: bytes, names: tuple[str, ...]) -> np.ndarray:
    return np.frombuffer(data, np.dtype([(name, np.int64) for name in names]))


@dataclass(frozen=True)
class TimingReport:
    """One launch on the chip. Times are cycles of its clock; `cores` and `ops` are as the C++
    core gives them (runtime/src/timing/report.h)."""

    chip: Chip
    cycles: int
    barriers: int
    instructions: int
    bytes_loaded: int
    bytes_stored: int
    shared_bytes: int
    macs: int
    row_macs: int
    cores: list[dict]
    ops: list[dict]
    recording: Recording | None = field(default=None, compare=False)

    @property
    def seconds(self) -> float:
        return self.cycles / (self.chip.clock_mhz * 1e6)

    @property
    def hbm_bytes(self) -> int:
        return self.bytes_loaded + self.bytes_stored

    @property
    def hbm_gbps(self) -> float:
        """Achieved bandwidth, 10^9 bytes a second."""
        return self.hbm_bytes / self.seconds / 1e9 if self.cycles else 0.0

    @property
    def hbm_bound(self) -> float:
        """Cycles that the bytes moved take at the memory's full bandwidth."""
        return self.hbm_bytes / self.chip.hbm_bytes_per_cycle

    @property
    def matrix_bound(self) -> float:
        """Cycles that the products take with every array of the chip at its peak."""
        return self.row_macs / (self.chip.mx_k * self.chip.mx_n * self.chip.cores)

    @property
    def matrix_peak_flops(self) -> float:
        """FLOP/s of all arrays on bf16."""
        return 2 * self.chip.bf16_macs_per_cycle * self.chip.clock_mhz * 1e6

    @property
    def roofline_bound(self) -> float:
        """The least cycles of the same work."""
        return max(self.hbm_bound, self.matrix_bound)

    @property
    def roofline_ratio(self) -> float:
        """The roofline bound over the time: at most 1."""
        return self.roofline_bound / self.cycles if self.cycles else 1.0

    def op_bound(self, op: dict) -> float:
        """The roofline bound of an entry of `ops`, in cycles."""
        arrays = self.chip.mx_k * self.chip.mx_n * self.chip.cores
        return max(op["hbm_bytes"] / self.chip.hbm_bytes_per_cycle, op["row_macs"] / arrays)

    @cached_property
    def utilisation(self) -> dict[str, float]:
        """The share of the time that each engine works, over all cores."""
        return {engine: self._share(core[engine]["busy"] for core in self.cores) for engine in ENGINES}

    @cached_property
    def stalls(self) -> dict[str, dict[str, float]]:
        """For each engine the share of the time that it waits, by cause; for the sequencer too."""
        out = {
            engine: {
                cause: self._share(core[engine]["stalls"][cause] for core in self.cores)
                for cause in self.cores[0][engine]["stalls"]
            }
            for engine in ENGINES
        }
        causes = self.cores[0]["sequencer"].keys() - {"issue"}
        out["sequencer"] = {
            cause: self._share(core["sequencer"][cause] for core in self.cores) for cause in sorted(causes)
        }
        return out

    @property
    def hbm_contention(self) -> dict[str, float]:
        """The share of the time that transfers take longer because others use the memory too."""
        return {e: self._share(core[e]["hbm_contention"] for core in self.cores) for e in ("load", "store")}

    @property
    def bank_conflicts(self) -> dict[str, float]:
        """The share of the time that instructions take longer because others use their banks too."""
        return {e: self._share(core[e]["bank_conflicts"] for core in self.cores) for e in ENGINES}

    def most_expensive(self, count: int) -> list[dict]:
        """The source ops that take longest, each an entry of `ops`."""
        return sorted(self.ops, key=lambda op: -op["cycles"])[:count]

    def to_dict(self) -> dict:
        """Everything, for JSON."""
        names = ("barriers", "instructions", "bytes_loaded", "bytes_stored", "utilisation", "stalls")
        names += ("hbm_contention", "bank_conflicts", "cores", "ops")
        return {"chip": self.chip.name, **{name: getattr(self, name) for name in (*TOTALS, *names)}}

    def _share(self, cycles) -> float:
        return sum(cycles) / max(self.cycles * len(self.cores), 1)


def time_image(chip: Chip, image: bytes, args: list, scope: Scope | None = None) -> TimingReport:
    """Times one launch of a program image; `args` as `Stream.launch` takes them; records what is in scope.

    Raises ChipError when the chip has no costs, NpuError as a load and a launch do.
    """
    if chip.timing is None:
        raise ChipError(f"the chip {chip.name} has no table `timing`: add one to its file (docs/timing.md)")
    report, recording = time_launch(chip, image, args, scope and scope.to_tuple())
    return TimingReport(chip, **report, recording=recording and Recording(**recording))


class TimedModel:
    """A compiled model whose launches are timed and not computed.

    target: the chip with its costs, by name, file or Chip; without it the chip file that has the name of
    the chip that the model was compiled for. Weights are not loaded: no cost depends on their values.
    Raises ChipError, NpuError.
    """

    def __init__(self, container: Container, target: "str | Chip | None" = None):
        compiled_for = container.signature.chip
        chip = Chip.load(target if target is not None else compiled_for.name)
        if chip.fingerprint != compiled_for.fingerprint:
            raise ChipError(
                f"{container.path} was compiled for {compiled_for.name}, which differs from {chip.name} in "
                "more than its costs: compile the model for the target"
            )
        self.chip, self.image = replace(compiled_for, timing=chip.timing), container.program
        self.program = Program(Device(self.chip, threads=1), self.image, container.signature)

    def on(self, chip: Chip) -> "TimedModel":
        """The same program on a chip that differs in costs only."""
        other = copy(self)
        other.chip = replace(self.chip, timing=chip.timing)
        return other

    @property
    def is_language_model(self) -> bool:
        return self.program.signature.kv is not None

    def launch(
        self,
        inputs: Mapping[str, torch.Tensor | np.ndarray],
        kv: PagePool | None = None,
        scope: Scope | None = None,
    ) -> TimingReport:
        """Times one launch. Of the inputs only integers that steer the program matter."""
        args, _ = self.program.bind(inputs, kv)
        self.program.stream.synchronize()
        return time_image(self.chip, self.image, args, scope)

    def batch(self, tokens: int, sequences: int, context: int, scope: Scope | None = None) -> TimingReport:
        """One launch of a language model: `tokens` new tokens, shared out evenly over the sequences, each
        of which is `context` tokens long afterwards."""
        shares = [tokens // sequences + (i < tokens % sequences) for i in range(sequences)]
        return self.step([(share, context) for share in shares], scope)

    def step(self, pieces: Sequence[tuple[int, int]], scope: Scope | None = None) -> TimingReport:
        """One launch of a language model: of each sequence its new tokens, and its length afterwards."""
        if any(not 0 < new <= length for new, length in pieces):
            tokens, lengths = (", ".join(map(str, dict.fromkeys(part))) for part in zip(*pieces, strict=True))
            raise ProgramError(
                f"{tokens} new tokens and a context of {lengths}: each sequence needs at least one new token "
                "and a context that holds its new tokens"
            )
        pages = [-(-length // PAGE_SIZE) for _, length in pieces]
        pool = PagePool(self.program.device, self.program.signature.kv, PAGE_SIZE, sum(pages))
        chunks = [
            Chunk(CachedSequence(pool.alloc(count), length - new), [0] * new)
            for (new, length), count in zip(pieces, pages, strict=True)
        ]
        return self.launch(LanguageModel(self.program, pool).inputs(chunks), pool, scope)

    def zeros(self, symbols: Mapping[str, int], scope: Scope | None = None) -> TimingReport:
        """One launch of any other model, on inputs of zeros. Symbols that are not given have their
        least value."""
        ranges = self.program.signature.symbols
        if unknown := symbols.keys() - ranges.keys():
            known = ", ".join(ranges) or "none"
            raise ProgramError(f"no symbol {', '.join(sorted(unknown))}: the program has {known}")
        values = {name: symbols.get(name, least) for name, (least, _) in ranges.items()}
        return self.launch(
            {
                name: torch.zeros([e.evaluate(values) for e in arg.shape], dtype=DTYPES[arg.dtype])
                for name, arg in self.program.signature.tensors("input").items()
            },
            scope=scope,
        )
