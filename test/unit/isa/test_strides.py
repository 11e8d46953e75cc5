"""A value has one result on an engine, bit for bit, wherever it lies.

The strides of a program for one row of a batch are others than those of a program for many.
"""

import pytest
import torch
from chip_lab import FLOATS
from opennpu.dialects.isa.table import ISA


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ISA.enums["unary"])
def test_a_function(lab, op, dtype):
    n = 50
    layouts = [
        ((1, 1, n), (), True),
        ((1, 1, n), (), False),
        ((1, n, 1), (0, 2), False),
        ((n, 1, 1), (1, 2), False),
    ]
    x = lab.randn((n,)).abs()
    tiles = [
        (lab.tile(shape, dtype, x.view(shape), "spm", *how), lab.tile(shape, dtype, None, "spm", *how))
        for shape, *how in layouts
    ]
    got = lab.run(*(lab.vector("v_unary", op=op, dst=dst, a=a) for a, dst in tiles))
    first, *others = (dst.view(got.after).flatten() for _, dst in tiles)
    for other in others:
        assert torch.equal(first, other)
