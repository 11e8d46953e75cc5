"""dma_load against a loop over the bytes."""

import pytest
import torch
from chip_lab import HBM_REGISTER, dma
from opennpu.dialects.isa.encoding import Affine

SPM, HBM = 512, Affine(1000, ((HBM_REGISTER, 1),))  # where the copies stand


def runs(n, bytes, src, ss, dst, ds):
    """(source, destination) of every run of bytes."""
    for i0 in range(n[0]):
        for i1 in range(n[1]):
            for i2 in range(n[2]):
                i = (i0, i1, i2)
                yield (
                    src + sum(a * b for a, b in zip(i, ss, strict=True)),
                    dst + sum(a * b for a, b in zip(i, ds, strict=True)),
                )


CASES = [
    ((1, 1, 1), 100, (0, 0, 0), (0, 0, 0)),
    ((2, 3, 4), 7, (200, 50, 9), (300, 90, 13)),
    ((2, 3, 4), 5, (0, 40, 0), (150, 20, 5)),  # repeats the source
    ((4, 1, 5), 3, (-60, 0, 11), (64, 0, 4)),
    ((1, 2, 3), 16, (0, 16, -32), (0, 64, 16)),
    ((1, 1, 8), 64, (0, 0, 64), (0, 0, 64)),
]


@pytest.mark.parametrize(("n", "bytes", "ss", "ds"), CASES)
def test_strided(lab, n, bytes, ss, ds):
    hbm = lab.bytes(2000)
    source = hbm.clone()
    got = lab.run(dma("dma_load", dst=SPM, src=HBM, n=n, bytes=bytes, ss=ss, ds=ds), hbm=(hbm,))
    expected = got.before["spm"].clone()
    for src, dst in runs(n, bytes, 1000, ss, SPM, ds):
        expected[dst : dst + bytes] = source[src : src + bytes]
    got.expect_memory({"spm": expected, "acc": got.before["acc"]})
    assert torch.equal(hbm, source)


@pytest.mark.parametrize(
    ("n", "bytes"), [((0, 2, 2), 8), ((2, -1, 2), 8), ((2, 2, 0), 8), ((1, 1, 1), 0), ((1, 1, 1), -8)]
)
def test_empty_wherever_it_points(lab, n, bytes):
    got = lab.run(dma("dma_load", dst=1 << 40, src=-1, n=n, bytes=bytes), hbm=(lab.bytes(8),))
    got.expect_memory(got.before)
