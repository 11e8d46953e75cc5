"""Chains of ops from plain torch.export, on both engines, with sizes the export did not see."""

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.pipeline import compile_model
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from torch import randn

T = torch.export.Dim("T", min=1, max=512)
ROWS = ({0: T},)


def rows(*widths, **sizes):
    """Inputs of 6 rows for the export, of 1 and 77 rows for more runs."""
    return [tuple(randn(n, width) for width in widths) for n in (6, 1, 77)]


def softmax_over_heads(x):
    heads = x.view(x.shape[0], 4, 5).transpose(0, 1)
    return F.softmax(heads * 0.3, -1).reshape(4, -1)


def patches(x):
    """A picture in patches, as vision transformers take it."""
    blocks = x.permute(0, 2, 3, 1).reshape(2, 4, 3, 4, 3, 5)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(2, 16, 45)


def causal(x):
    mask = torch.arange(20) > torch.arange(x.shape[0]).unsqueeze(1)
    return x.masked_fill(mask, -1e9).softmax(-1)


def attention(q, k):
    return F.softmax(q @ k.transpose(-1, -2) / 4, -1) @ k


CHAINS = {
    "elementwise": (lambda x: ((x.exp() + 1).log() * x).mean(-1), ROWS, rows(10)),
    "views": (softmax_over_heads, ROWS, rows(20)),
    "concat": (lambda x, y: torch.cat([x.sin(), y[:, 1:3], x * 2], 1), ROWS * 2, rows(20, 5)),
    "interleave": (lambda x: torch.stack([x[:, ::2], x[:, 1::2]], -1).flatten(-2), ROWS, rows(20)),
    "norms": (lambda x: F.layer_norm(x, (20,)) + F.rms_norm(x, (20,)), ROWS, rows(20)),
    "reductions": (lambda x: (x.argmax(-1), x.amax(0), x.var(-1)), ROWS, rows(20)),
    "mask": (causal, ROWS, rows(20)),
    "gather": (
        lambda x, i: torch.gather(x, 1, i) + x[i[:, 0], :3],
        ROWS * 2,
        [(randn(n, 16), torch.randint(0, min(n, 16), (n, 3))) for n in (6, 1, 77)],
    ),
    "embedding": (
        lambda table, i: table[i].sum(1),
        (None, {0: T}),
        [(randn(50, 16), torch.randint(0, 50, (n, 3))) for n in (6, 1, 77)],
    ),
    "integers": (
        lambda i: (i * 3 + 1) // 2 % 5 - (i < 4).long(),
        ROWS,
        [(torch.arange(n),) for n in (7, 1, 200)],
    ),
    "patches": (patches, (None,), [(randn(2, 5, 12, 12),)]),
    "attention": (attention, ({1: T},) * 2, [(randn(2, n, 16), randn(2, n, 16)) for n in (6, 1, 77)]),
}


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("name", CHAINS)
def test_chain(name, engine, tmp_path):
    function, dynamic, runs = CHAINS[name]

    class Chain(torch.nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    program = torch.export.export(Chain(), runs[0], dynamic_shapes=(dynamic,), strict=False)
    compile_model(Archive(program), tmp_path / "model.npu")
    device = Device("npu1-lite", engine=engine, race_check=engine == "reference")
    compiled = Program.load(device, tmp_path / "model.npu")
    names = list(compiled.signature.tensors("input"))
    for inputs in runs:
        outputs = list(compiled.run(dict(zip(names, inputs, strict=True))).values())
        expected = function(*inputs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for actual, y in zip(outputs, expected, strict=True):
            # f32 throughout; sums of up to 77 terms in another order than PyTorch's, on values of
            # a few units, and functions within 4 ulp.
            torch.testing.assert_close(actual, y, rtol=2e-5, atol=2e-5, equal_nan=True)
