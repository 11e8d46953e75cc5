"""The `opennpu::` operators as `npu`, against their implementations on the host."""

import pytest
import torch
from conversion_harness import check
from opennpu.compiler.frontend import ops

ROWS = torch.export.Dim("T", min=1, max=64)


class Call(torch.nn.Module):
    """A function of rows [T, …], and of constants that are parameters."""

    def __init__(self, function, *parameters):
        super().__init__()
        self.function = function
        self.parameters_ = torch.nn.ParameterList(torch.nn.Parameter(p, False) for p in parameters)

    def forward(self, *rows):
        return self.function(*rows, *self.parameters_)


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def rows_of(count):
    ids = torch.randint(0, 4, (count, 2), generator=torch.Generator().manual_seed(count))
    return randn(count, 8), randn(count, 6), randn(count, 2), ids


CALLS = {
    "matmul": (lambda x, y, s, i, w, b: ops.matmul(x, w, b, y, activation="gelu"), [randn(6, 8), randn(6)]),
    "matmul_plain": (lambda x, y, s, i, w: ops.matmul(x, w, transpose_w=False), [randn(8, 6)]),
    "matmul_gate": (lambda x, y, s, i, w: ops.matmul(x, w, None, y, activation="gate_silu"), [randn(12, 8)]),
    "matmul_gate_of_columns": (
        lambda x, y, s, i, w: ops.matmul(x, w, activation="gate_gelu_tanh", transpose_w=False),
        [randn(8, 6)],
    ),
    "rms_norm": (lambda x, y, s, i, w: ops.rms_norm(x, w, 1e-5), [randn(8)]),
    "add_rms_norm": (lambda x, y, s, i, w: ops.add_rms_norm(x, x + 1, w, 1e-5), [randn(8)]),
    "layer_norm": (lambda x, y, s, i, w, b: ops.layer_norm(x, w, b, 1e-5), [randn(8), randn(8)]),
    "layer_norm_without_bias": (lambda x, y, s, i, w: ops.layer_norm(x, w, None, 1e-5), [randn(8)]),
    "silu_and_mul": (lambda x, y, s, i: ops.silu_and_mul(x), []),
    "gelu_and_mul": (lambda x, y, s, i: ops.gelu_and_mul(x, "tanh"), []),
    "rotary_embedding": (
        lambda x, y, s, i, cache: ops.rotary_embedding(i[:, 0], x, x, cache, 8, True),
        [randn(4, 6)],
    ),
    "topk_softmax": (lambda x, y, s, i: ops.topk_softmax(x, 3, True), []),
    "grouped_matmul": (
        lambda x, y, s, i, w: ops.grouped_matmul(x, w, i.sum() * 0 + torch.tensor([0, 0, 3])),
        [randn(2, 5, 8)],
    ),
    "fused_moe": (
        lambda x, y, s, i, w13, w2: ops.fused_moe(x, s, i, w13, w2, activation="gelu"),
        [randn(4, 12, 8), randn(4, 8, 6)],
    ),
    "embedding": (lambda x, y, s, i, table: ops.embedding(table, i), [randn(4, 5)]),
    "argmax": (lambda x, y, s, i: ops.argmax(x), []),
}


@pytest.mark.parametrize("name", CALLS)
def test_conversion(name):
    function, parameters = CALLS[name]
    others = [] if name == "grouped_matmul" else [rows_of(5), rows_of(1)]
    check(Call(function, *parameters), rows_of(3), {"rows": ({0: ROWS},) * 4}, others)
