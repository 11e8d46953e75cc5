"""Sizes of the blocks of a product, from the chip's memories."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.tiling import BUFFERS
from opennpu.runtime.chip import Chip

STREAM_BUFFERS, STREAM_TILES = 4, 16
"""Buffers for parts of w, and stationary tiles in all of them, where a quarter of scratchpad holds as many:
what is on its way while DMA's latency passes."""

NARROWER_PAYS = 1.05
"""A narrower column tile must save a core more than this: it has shorter bursts and more of them."""

NOMINAL_ROWS = (512, 1024, 2048, 4096)
"""For how many rows blocks are chosen, as far as x may have so many: prefills are of such sizes. With few
rows every choice loads x and w once."""

SUMS_PAY = 1.1
"""Sums in scratchpad must save this much of the traffic: the vector unit has to add them."""

SUMS_DEPTH = (8, 4, 2)
"""How many tiles of w deep a part of K is whose sums are added to those in scratchpad: an addition must take
the vector unit less time than the products before it take the matrix unit."""


PARTS = 16
"""Of K, in which an x that stays comes: products begin with the first."""

TOGETHER = 4
"""Column tiles that take the parts of x as they come: for as long as loads of x and their own w take, these
have work."""

PORT = 4
"""How much cheaper a byte is that a core takes from a shared load than one of its part of HBM: the ports of
all scratchpads together are some times faster than HBM."""


@dataclass(frozen=True)
class MatmulTiling:
    """Tiles of y[M,N] = x[M,K]·w[K,N].

    `mt` rows of x at a time, `nt` columns of w, `kt` of K to a tile of w. `k`: where a block of x
    holds all of K while the columns pass, the greatest K; None where x comes in parts.
    """

    mt: int
    nt: int
    kt: int
    k: int | None

    @property
    def resident(self) -> bool:
        return self.k is not None

    def result_rows(self, chip: Chip) -> int:
        """How many rows of a tile go through the epilogue at a time."""
        return min(self.mt, chip.mx_k)


@dataclass(frozen=True)
class BlockTiling(MatmulTiling):
    """Blocks of y for a core to compute at a time: `mt` rows × `columns` tiles of nt columns.

    Where x is resident it comes `depth` of K at a time, and `columns` tiles take it as it comes, others
    later. Else the block's sums lie in scratchpad while K passes, `depth` of it at a time.
    """

    columns: int
    depth: int

    def traffic(self, chip: Chip, m: Index, tiles: Index, row_cores: int) -> Index:
        """What a core's loads cost for each element of K, where `row_cores` share the rows and the others the
        column tiles: elements · `_load_cost`."""
        column_cores = chip.cores // row_cores
        rows, columns = ceildiv(m, row_cores), ceildiv(tiles, column_cores)
        x = rows * (1 if self.resident else ceildiv(columns, self.columns))
        w = columns * ceildiv(rows, self.mt) * self.nt
        return x * _load_cost(chip, column_cores) + w * _load_cost(chip, row_cores)

    def row_cores(self, chip: Chip, m: Index, tiles: Index) -> Index:
        """How many cores, a divisor of all, should share the rows: those with the least traffic."""
        unit = chip.cores + 1
        divisors = [d for d in range(1, unit) if chip.cores % d == 0]
        best: Index = self.traffic(chip, m, tiles, divisors[0]) * unit + divisors[0]
        for d in divisors[1:]:
            best = minimum(best, self.traffic(chip, m, tiles, d) * unit + d)
        return best % unit


def matmul_tiling(
    chip: Chip, m: int | None, k: int | None, itemsize: int, nt: int, kt: int = 0
) -> MatmulTiling:
    """The tiling for at most m rows and k deep (None: unbounded), elements of `itemsize` bytes.

    `kt` is the depth of a tile of w, by default one stationary tile's. Rows are bounded by the
    accumulator, and by the scratchpad: x once, tiles of w, and f32-sized tiles of the result and of a
    residual. `mt` < 1 where not one row fits.
    """
    kt = kt or chip.mx_k
    by_acc = chip.acc_bytes // (BUFFERS * nt * 4)
    most = min(by_acc, max(m, 1)) if m is not None else by_acc
    w = kt * nt * itemsize
    rest = chip.spm_bytes - stream_buffers(chip, nt * itemsize, kt) * w - BUFFERS * nt * 4
    per_row = 2 * BUFFERS * nt * 4
    if k:
        rows = rest // (k * itemsize + per_row)
        if rows >= min(most, chip.strip):
            return MatmulTiling(_even(min(most, rows)), nt, kt, k)
    streamed = rest // (BUFFERS * kt * itemsize + per_row)
    return MatmulTiling(_even(min(most, streamed)), nt, kt, None)


@lru_cache
def block_tilings(
    chip: Chip, m: int | None, k: int, itemsize: int, tiles: int, nt: int, result_bytes: int
) -> tuple[BlockTiling, ...]:
    """The tilings that fit for at most m rows (None: unbounded), the one with the least traffic first.

    `tiles` column tiles of nt; a row of a tile takes `result_bytes` in scratchpad for y and residuals.
    """
    m = max(m, 1) if m is not None else None
    nominal = [rows for rows in NOMINAL_ROWS if m is None or rows <= m] or [m]

    def cost(tiling: BlockTiling) -> float:
        loads = (
            tiling.traffic(chip, rows, tiles, tiling.row_cores(chip, rows, tiles)) / rows for rows in nominal
        )
        idle = max(
            1.0, chip.mx_k / tiling.mt
        )  # a stationary tile takes longer to load than few rows to multiply
        return sum(loads) * idle * (1 if tiling.resident else SUMS_PAY)

    fitting = [
        *_resident(chip, m, k, itemsize, tiles, nt, result_bytes),
        *_summed(chip, m, k, itemsize, tiles, nt, result_bytes),
    ]
    return tuple(sorted(fitting, key=cost))


def _load_cost(chip: Chip, cores: int) -> int:
    """Of a load that is the same on `cores` cores: each one's part of reading HBM, and its own port."""
    shared = cores if cores <= chip.share_cores else 1
    return PORT * chip.cores // shared + chip.cores


def _resident(
    chip: Chip, m: int | None, k: int, itemsize: int, tiles: int, nt: int, result_bytes: int
) -> Iterator[BlockTiling]:
    """x whole while the columns pass. The accumulator has room for the rows once: with as many rows,
    the loads of w take longer than products and results one after the other."""
    w = chip.mx_k * nt * itemsize
    rest = chip.spm_bytes - stream_buffers(chip, nt * itemsize) * w - BUFFERS * nt * 4
    most = min(chip.acc_bytes // (nt * 4), rest // (k * itemsize))
    for mt in _heights(most if m is None else min(most, m)):
        columns = min(TOGETHER, chip.acc_bytes // (mt * nt * 4))
        parts = [p for p in range(1, PARTS + 1) if k % (p * chip.mx_k) == 0]
        depth = k // parts[-1] if parts and mt >= chip.mx_k and columns > 1 else k
        tiling = BlockTiling(mt, nt, chip.mx_k, k, columns, depth)
        if mt * k * itemsize + BUFFERS * tiling.result_rows(chip) * result_bytes <= rest:
            yield tiling


def _summed(
    chip: Chip, m: int | None, k: int, itemsize: int, tiles: int, nt: int, result_bytes: int
) -> Iterator[BlockTiling]:
    """Sums of a block in scratchpad, a tile of them in the accumulator."""
    most = chip.acc_bytes // (BUFFERS * nt * 4)
    w = chip.mx_k * nt * itemsize
    room = chip.spm_bytes - stream_buffers(chip, nt * itemsize) * w - BUFFERS * nt * 4
    for rows in _heights(most if m is None else min(most, m)):
        for depth in (chip.mx_k * n for n in SUMS_DEPTH if chip.mx_k * n < k):
            tiling = BlockTiling(rows, nt, chip.mx_k, None, columns=1, depth=depth)
            rest = room - BUFFERS * (rows * depth * itemsize + tiling.result_rows(chip) * result_bytes)
            if (columns := min(tiles, rest // (rows * nt * 4))) > 0:
                yield replace(tiling, columns=columns)


def _heights(most: int) -> list[int]:
    """Numbers of rows to choose from."""
    return [*range(16, most + 1, 16), *(rows for rows in (min(most, 15), 8, 4, 2, 1) if 0 < rows <= most)]


def stream_buffers(chip: Chip, row_bytes: int, depth: int = 0) -> int:
    """How many parts of w, `depth` rows of a column tile (0: a stationary tile), are on their way or wait."""
    depth = depth or chip.mx_k
    wanted = max(STREAM_BUFFERS, STREAM_TILES * chip.mx_k // depth)
    return max(BUFFERS, min(wanted, chip.spm_bytes // 4 // (depth * row_bytes)))


def depth_tile(chip: Chip, k: int | None, itemsize: int, nt: int) -> int:
    """How much of K (at most k; None: unbounded) one DMA brings of an unpacked w: whole stationary
    tiles, as many as a quarter of the scratchpad has room for twice, so that rows make long bursts."""
    tiles = max(1, chip.spm_bytes // 4 // (BUFFERS * chip.mx_k * nt * itemsize))
    return chip.mx_k * (tiles if k is None else min(tiles, max(1, ceildiv(k, chip.mx_k))))


def column_tile(chip: Chip, n: int, most: int = 0) -> int:
    """The widest column tile, a multiple of the strip and at most `most` (mx_n) wide, that leaves the slowest
    core next to least to do."""

    def slowest(nt: int) -> int:
        return ceildiv(ceildiv(n, nt), chip.cores) * nt

    widths = range(most or chip.mx_n, 0, -chip.strip)
    enough = NARROWER_PAYS * min(map(slowest, widths))
    return next(nt for nt in widths if slowest(nt) <= enough)


def _even(rows: int) -> int:
    """Rounded down to a multiple of 16 where that leaves any."""
    return rows // 16 * 16 or rows
