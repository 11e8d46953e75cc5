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
N = torch.export.Dim("N", min=0, max=512)
ROWS = ({0: T},)
ANY_ROWS = ({0: N},)  # also none


def rows(*widths, **sizes):
    """Inputs of 6 rows for the export, of 1 and 77 rows for more runs."""
    return [tuple(randn(n, width) for width in widths) for n in (6, 1, 77)]


def any_rows(*shapes):
    """Inputs of 5, 0, 1 and 70 rows of these shapes."""
    return [tuple(randn(n, *shape) for shape in shapes) for n in (5, 0, 1, 70)]


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


def log_softmax(x):
    shifted = x - x.amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def moments(x):
    """Layer normalisation written out."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)


def over_rows(x):
    """Reductions over the rows, whose number is not known."""
    return (x - x.mean(0, keepdim=True)).square().sum(0), x.softmax(0), x.sum()


def distances(x):
    """Relative positions, cut off: arithmetic on indices alone."""
    i = torch.arange(x.shape[0])
    return (i[:, None] - i[None, :]).clamp(-4, 4) + 4


def crossing(x, v):
    """Two groups that each need the other's values, were they fused as far as shapes allow."""
    a, p = x.exp(), v.exp()
    h = a + p
    return h, p * a[:, :1].reshape(-1)[:64]


def empty_beside_full(x):
    """A tensor of no elements comes and goes while others live."""
    none = x[:0].exp()
    a, none, b = -x, none.exp(), x.tanh()
    return (a + b).abs(), none.abs()


def shuffle(table, i):
    """Transposes around a gather, then every second of what it found next to the rest."""
    found = table.transpose(0, 1)[i].transpose(1, 2)
    return torch.cat([found[:, ::2], found[:, 1:]], 1)


def selected(x, y):
    return torch.where((x > y) & (x > 0) | ~(y < 0.5), x * torch.where(x < 0, 1.0, 2.0), -y)


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
    "log_softmax": (log_softmax, ANY_ROWS, any_rows((33,))),
    "moments": (moments, ANY_ROWS, any_rows((33,))),
    "over_rows": (over_rows, ROWS, rows(20)),
    "middle": (lambda x: (x.softmax(1) * x.mean(1, keepdim=True)).amax(1), ANY_ROWS, any_rows((7, 5))),
    "outer": (lambda x, y: x[:, None] * y[:, :, None] + 1, ANY_ROWS * 2, any_rows((5,), (7,))),
    "size_one": (lambda x: x.squeeze(1) + x.expand(-1, 5, -1).sum(1), ANY_ROWS, any_rows((1, 7))),
    "cat_rows": (lambda x, y: torch.cat([x, y, x * 2], 0), ANY_ROWS * 2, any_rows((20,), (20,))),
    "cat_columns": (lambda x, y: torch.cat([x, y], 2), ANY_ROWS * 2, any_rows((3, 4), (3, 5))),
    "where": (selected, ANY_ROWS * 2, any_rows((20,), (20,))),
    "no_token": (
        lambda x: x.masked_fill(x < 0.5, float("-inf")).softmax(-1).nan_to_num(0.0),
        ANY_ROWS,
        any_rows((3,)),
    ),
    "distances": (distances, ANY_ROWS, any_rows((3,))),
    "shuffle": (
        shuffle,
        (None, {0: N}),
        [(randn(3, 50, 4), torch.randint(0, 50, (n,))) for n in (5, 0, 1, 70)],
    ),
    "one_hot": (
        lambda i: F.one_hot(i, 9).float() @ torch.arange(18.0).view(9, 2),
        ANY_ROWS,
        [(torch.randint(0, 9, (n,)),) for n in (5, 0, 1, 70)],
    ),
    "tril": (lambda x: x.tril(), ANY_ROWS, any_rows((9,))),
    "gated": (lambda x: torch.addcmul(*x.sigmoid().chunk(3, -1)), ANY_ROWS, any_rows((21,))),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), ANY_ROWS * 2, any_rows((3, 8), (5, 8))),
    "normalize": (lambda x: F.normalize(x, dim=-1), ANY_ROWS, any_rows((9,))),
    "logsumexp": (lambda x: torch.logsumexp(x, -1), ANY_ROWS, any_rows((9,))),
    "in_place": (
        lambda x, y: (x * 2).add_(1).mul_(y[1:]),
        ({0: T}, {0: T + 1}),
        [(randn(n, 5), randn(n + 1, 5)) for n in (6, 1, 77)],
    ),
    "patches": (patches, (None,), [(randn(2, 5, 12, 12),)]),
    "crossing": (crossing, (None, None), [(randn(64, 64), randn(64))]),
    "empty_beside_full": (empty_beside_full, (None,), [(randn(8, 16),)]),
    "iota_of_one": (lambda x: x * 2 + torch.arange(3, 4), (None,), [(randn(6, 4),)]),
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
