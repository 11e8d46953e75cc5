"""dma_store against a loop over the bytes."""

import pytest
import torch
from chip_lab import dma
from test_dma_load import CASES, HBM, SPM, runs

# The strides of the loads the other way round; a scratchpad may be read backwards, too.
MIRRORED = [
    (n, bytes, ds, ss)
    for n, bytes, ss, ds in CASES
    if 0 not in [s for s, c in zip(ss, n, strict=True) if c > 1]
]


@pytest.mark.parametrize(("n", "bytes", "ss", "ds"), MIRRORED)
def test_strided(lab, n, bytes, ss, ds):
    hbm = lab.bytes(2000)
    want = hbm.clone()
    got = lab.run(dma("dma_store", dst=HBM, src=SPM, n=n, bytes=bytes, ss=ss, ds=ds), hbm=(hbm,))
    for src, dst in runs(n, bytes, SPM, ss, 1000, ds):
        want[dst : dst + bytes] = got.before["spm"][src : src + bytes]
    assert torch.equal(hbm, want)
    got.expect_memory(got.before)


def test_repeated_source(lab):
    hbm = lab.bytes(1100)
    got = lab.run(dma("dma_store", dst=HBM, src=SPM, n=(1, 1, 5), bytes=4, ds=(0, 0, 8)), hbm=(hbm,))
    for i in range(5):
        assert torch.equal(hbm[1000 + 8 * i :][:4], got.before["spm"][SPM : SPM + 4])


@pytest.mark.parametrize(("n", "bytes"), [((0, 2, 2), 8), ((2, 2, -9), 8), ((1, 1, 1), 0)])
def test_empty_wherever_it_points(lab, n, bytes):
    hbm = lab.bytes(64)
    want = hbm.clone()
    got = lab.run(dma("dma_store", dst=-1, src=1 << 40, n=n, bytes=bytes), hbm=(hbm,))
    got.expect_memory(got.before)
    assert torch.equal(hbm, want)
