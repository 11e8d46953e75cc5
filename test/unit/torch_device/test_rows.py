"""A row of a reduction is the same bit for bit, whatever rows are reduced with it: samplers rely on it."""

import pytest
import torch
import torch.nn.functional as F

REDUCTIONS = {
    "log_softmax": lambda x: x.log_softmax(-1),
    "softmax": lambda x: x.softmax(-1),
    "sum": lambda x: x.sum(-1),
}


WEIGHTS = torch.randn(24, 300, generator=torch.Generator().manual_seed(1))
OF_300 = {
    "mean": lambda x: x.mean(-1),
    "var": lambda x: x.var(-1),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "linear": lambda x: F.linear(x, WEIGHTS.to(x)),
    "silu": F.silu,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OF_300)
def test_a_row_among_others(name, dtype):
    """One row has a program of its own, which strides its tiles otherwise."""
    function = OF_300[name]
    x = torch.randn(65, 300, generator=torch.Generator().manual_seed(0)).to("opennpu", dtype)
    together = function(x).cpu()
    alone = torch.cat([function(x[i : i + 1]).cpu() for i in range(5)])
    assert torch.equal(alone, together[:5])
    for n in (2, 17):
        assert torch.equal(function(x[:n]).cpu(), together[:n])


@pytest.mark.parametrize("length", [300, 9000, 49152, 200_000], ids="rows of {}".format)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_row_alone(name, length):
    """Longer rows than scratchpad holds are taken in pieces, the same ones for a row alone."""
    function = REDUCTIONS[name]
    x = 4 * torch.randn(5, length, generator=torch.Generator().manual_seed(0))
    together = function(x.to("opennpu")).cpu()
    # Sums of `length` terms of about 4: the worst case of float32 grows with the square root of it.
    torch.testing.assert_close(together, function(x), rtol=1e-5, atol=1e-6 * length**0.5)
    for rows in (slice(0, 1), slice(4, 5), slice(1, 3)):
        assert torch.equal(function(x[rows].to("opennpu")).cpu(), together[rows])
