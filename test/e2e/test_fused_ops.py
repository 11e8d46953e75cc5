"""SGLang's layers that no operator covers are refused, or traced as SGLang writes them."""

from types import SimpleNamespace

import pytest
import torch
from opennpu.dialects.diagnostics import CompileError

PLAIN = {
    "activation": "silu",
    "is_gated": True,
    "apply_router_weight_on_input": False,
    "no_combine": False,
    "gemm1_alpha": None,
    "gemm1_clamp_limit": None,
    "swiglu_limit": None,
}


def experts(bias=None, count=4, **options):
    """A layer of 4 experts here, of `count` in the model."""
    return SimpleNamespace(
        layer_id=7,
        num_experts=count,
        w13_weight=torch.randn(4, 12, 8),
        w2_weight=torch.randn(4, 8, 6),
        w13_weight_bias=bias,
        moe_runner_config=SimpleNamespace(**PLAIN | options),
    )


def run(layer, interleaved=False):
    from opennpu.sglang_integration import fused_ops

    routed = (torch.rand(3, 2), torch.randint(0, 4, (3, 2)), None)
    given = SimpleNamespace(hidden_states=torch.randn(3, 8), topk_output=routed)
    return fused_ops._fused_moe(SimpleNamespace(w13_swiglu_interleaved=interleaved), layer, given)


def test_experts_are_one_operator():
    assert run(experts()).hidden_states.shape == (3, 8)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (experts(activation="situ"), "the activation situ"),
        (experts(bias=torch.zeros(4, 12)), "a bias"),
        (experts(is_gated=False), "experts without a gate"),
        (experts(gemm1_alpha=1.7, gemm1_clamp_limit=7.0), "a limited activation"),
        (experts(count=8), "experts elsewhere"),
    ],
)
def test_other_experts_are_refused(layer, what):
    with pytest.raises(CompileError, match=f"layer 7 with {what} is not supported"):
        run(layer)
