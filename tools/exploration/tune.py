"""The tilings of a model's products that take the fewest cycles on a chip, by trying them.

One product after another: each alternative is compiled and timed with the best of the products before
it, and kept where the launches together, each relative to what it took at first, get faster.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from opennpu.compiler.cache import Cache, key_of
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.kernels.matmul_tiling import BlockTiling
from opennpu.runtime.chip import Chip
from opennpu.tools.exploration.sweep import Launch, compiled

LAUNCHES = (Launch(1, 1, 2048), Launch(8, 8, 2048), Launch(64, 64, 2048), Launch(2048, 1, 2048))

KINDS, OF_A_KIND = 3, 2
"""How many kinds of tilings (x stays, or sums of so deep a part of K do) are tried, and how many of each."""


@dataclass(frozen=True)
class Tuned:
    """The choices, the cycles of each launch without and with them, and how each product is tiled."""

    made: dict[str, int]
    before: list[int]
    after: list[int]
    tilings: dict[str, str]


def tuned(
    path: Path,
    archive: Archive,
    chip: Chip,
    launches: Sequence[Launch],
    progress: Callable[[int, int], None],
    cache: Cache | None = None,
) -> Tuned:
    """What `tune` finds for the archive at `path`, from the cache where it was found before."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    request = {"tune": digest, "launches": list(launches), "timing": asdict(chip.timing)}

    def build(output: Path) -> None:
        output.write_text(json.dumps(asdict(tune(archive, chip, launches, progress))))

    found = (cache or Cache()).get_or_build(key_of(request, chip.canonical_json()), build)
    return Tuned(**json.loads(found.read_text()))


def tune(
    archive: Archive, chip: Chip, launches: Sequence[Launch], progress: Callable[[int, int], None]
) -> Tuned:
    """Tries the alternatives; `progress` is told how many are done, and of how many. Raises CompileError."""

    def cycles(choices: Choices) -> list[int]:
        model = compiled(archive, chip, choices)
        return [model.batch(each.tokens, each.seqs, each.context).cycles for each in launches]

    first = Choices()
    before = after = cycles(first)
    trials = [(product, i) for product, tilings in first.offered.items() for i in alternatives(tilings)]
    made: dict[str, int] = {}
    for done, (product, i) in enumerate(trials):
        progress(done, len(trials))
        now = cycles(Choices({**made, product: i}))
        if _total(now, before) < _total(after, before):
            made, after = {**made, product: i}, now
    tilings = {product: describe(offered[made.get(product, 0)]) for product, offered in first.offered.items()}
    return Tuned(made, before, after, tilings)


def alternatives(tilings: Sequence[BlockTiling]) -> list[int]:
    """The numbers of the tilings to try besides the first: some of each kind."""
    kinds: dict[int, list[int]] = {}
    for i, tiling in enumerate(tilings):
        kinds.setdefault(0 if tiling.resident else tiling.depth, []).append(i)
    return sorted(i for some in list(kinds.values())[:KINDS] for i in some[:OF_A_KIND] if i > 0)


def describe(tiling: BlockTiling) -> str:
    if tiling.resident:
        return f"{tiling.mt} rows of x stay"
    return f"sums of {tiling.mt} × {tiling.columns * tiling.nt} stay, {tiling.depth} deep at a time"


def table(tuned: Tuned, launches: Sequence[Launch]) -> Iterator[str]:
    """Before and after, and the tilings."""
    width = max(len(str(launch)) for launch in launches)
    yield f"{'':<{width}} {'cycles before':>15} {'after':>15} {'saved':>7}"
    for launch, before, after in zip(launches, tuned.before, tuned.after, strict=True):
        yield f"{launch!s:<{width}} {before:>15,} {after:>15,} {1 - after / before:>7.1%}"
    for product, tiling in tuned.tilings.items():
        yield f"{product}: {tiling}{' (changed)' if product in tuned.made else ''}"


def _total(cycles: Sequence[int], before: Sequence[int]) -> float:
    return sum(now / then for now, then in zip(cycles, before, strict=True))
