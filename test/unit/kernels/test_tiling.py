"""Tile sizes: they fit the memories of any chip, and use them."""

from dataclasses import replace
from math import ceil

from hypothesis import given
from hypothesis import strategies as st
from opennpu.compiler.kernels.matmul_tiling import block_tilings, column_tile, matmul_tiling
from opennpu.compiler.kernels.tiling import row_block
from opennpu.runtime.chip import Chip

LITE = Chip.load("npu1-lite")
chips = st.builds(
    lambda spm, acc, cores: replace(LITE, spm_kib=spm, acc_kib=acc, cores=cores),
    st.sampled_from([256, 512, 4096]),
    st.sampled_from([128, 512]),
    st.integers(1, 64),
)
extents = st.one_of(st.none(), st.integers(1, 200_000))


@given(chips, extents, extents, st.sampled_from([2, 4]), st.sampled_from([16, 96, 128]))
def test_matmul_tiles_fit(chip, m, k, itemsize, nt):
    t = matmul_tiling(chip, m, k, itemsize, nt)
    assert t.mt >= 1 and (m is None or t.mt <= m)
    x = t.mt * k if t.resident else 2 * t.mt * t.kt
    results = 2 * 2 * t.mt * nt * 4  # y and a residual, at most f32, both double-buffered
    assert x * itemsize + 2 * t.kt * nt * itemsize + results <= chip.spm_bytes
    assert 2 * t.mt * nt * 4 <= chip.acc_bytes


@given(
    chips,
    extents,
    st.integers(1, 30_000),
    st.sampled_from([2, 4]),
    st.integers(1, 2000),
    st.sampled_from([16, 96, 128]),
    st.integers(1, 3),
)
def test_blocks_fit(chip, m, k, itemsize, tiles, nt, results):
    """y and what is added to it are at most f32, double-buffered; x, tiles of w and sums fit beside them."""
    found = block_tilings(chip, m, k, itemsize, tiles, nt, results * nt * 4)
    assert found
    for t in found[:5]:
        used = 2 * min(t.mt, chip.mx_k) * results * nt * 4 + 2 * t.kt * nt * itemsize
        if t.resident:
            used += t.mt * k * itemsize
            assert t.mt * nt * 4 <= chip.acc_bytes
        else:
            used += 2 * t.mt * t.depth * itemsize + t.mt * t.columns * nt * 4
            assert 2 * t.mt * nt * 4 <= chip.acc_bytes and t.depth % t.kt == 0 and t.depth < k
        assert used <= chip.spm_bytes
        assert t.mt >= 1 and (m is None or t.mt <= m)


def test_what_loads_least_is_chosen():
    """Of Llama-3-8B's down projection a row is 28 KiB: 16 cores of 4 MiB keep sums instead. Of a row of
    1152 bytes they keep x."""
    assert not block_tilings(Chip.load("npu1"), 8192, 14336, 2, 32, 128, 512)[0].resident
    assert block_tilings(LITE, 8192, 576, 2, 24, 128, 256)[0].resident


@given(st.integers(1, 9000), st.integers(1, 300), st.sampled_from([1, 2, 6, 16, 17]))
def test_the_grid_of_cores_loads_least(m, tiles, cores):
    chip = replace(LITE, cores=cores)
    tiling = block_tilings(chip, None, 576, 2, tiles, 128, 512)[0]
    best = tiling.row_cores(chip, m, tiles)
    divisors = [d for d in range(1, cores + 1) if cores % d == 0]
    assert best in divisors
    least = min(tiling.traffic(chip, m, tiles, d) for d in divisors)
    assert tiling.traffic(chip, m, tiles, best) == least


@given(chips, st.integers(1, 200_000))
def test_column_tiles_share_the_work(chip, n):
    nt = column_tile(chip, n)
    assert nt % chip.strip == 0 and 0 < nt <= chip.mx_n
    slowest = {w: ceil(ceil(n / w) / chip.cores) * w for w in range(chip.strip, chip.mx_n + 1, chip.strip)}
    assert slowest[nt] <= 1.05 * min(slowest.values())


def test_a_narrow_column_tile_must_pay():
    """A vocabulary of 128256 over 16 cores: 16 columns would save a core 0.6 %, in bursts of an eighth."""
    assert column_tile(replace(LITE, cores=16), 128256) == 128


@given(chips, st.integers(1, 100_000))
def test_row_blocks_fit_twice(chip, row_bytes):
    rows = row_block(chip, row_bytes)
    assert rows == 1 or 2 * rows * row_bytes <= chip.spm_bytes
