"""SGLang's fused layers as single `opennpu::` operators, so that a trace keeps them whole.

A layer whose options an operator does not cover falls back to SGLang's own
decomposition, which is traced op by op.
"""

from opennpu.compiler.frontend import ops
from opennpu.dialects.diagnostics import CompileError, Problem
from sglang.kernels.fused_op import BaseFusedOp
from sglang.srt.layers.activation import GeluAndMul, SiluAndMul
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput
from sglang.srt.layers.moe.topk import StandardTopKOutput, TopK
from sglang.srt.layers.quantization.unquant import UnquantizedFusedMoEMethod
from sglang.srt.layers.rotary_embedding import RotaryEmbedding
from torch import nn

MOE_ACTIVATIONS = ("silu", "gelu")
"""SGLang's names of the experts' activations, which are `ops.fused_moe`'s."""


def register(platform_key: str) -> None:
    """Tell SGLang to use the forwards below on the platform of this name."""
    forwards = {
        RMSNorm: _rms_norm,
        SiluAndMul: lambda self, x: ops.silu_and_mul(x),
        GeluAndMul: lambda self, x: ops.gelu_and_mul(x, self.approximate),
        RotaryEmbedding: _rotary_embedding,
        TopK: _topk,
        UnquantizedFusedMoEMethod: _fused_moe,
    }
    forwards |= dict.fromkeys(_plain_rotary_classes(RotaryEmbedding), _rotary_embedding)
    for op_class, forward in forwards.items():
        BaseFusedOp.register_oot_forward(op_class, forward, platform_key)


def resolve(model: nn.Module) -> None:
    """Fix every fused layer's forward before tracing.

    The registry is keyed by the exact class, which torch.export's module proxies hide.
    """
    for module in model.modules():
        if isinstance(module, BaseFusedOp) and module._forward_method is None:
            module._forward_method = module._resolve_forward_method()


def _rms_norm(self, x, residual=None, post_residual_addition=None, quant_linear=None):
    covered = (
        self.variance_size_override is None
        and not self.fp32_residual
        and self.override_orig_dtype is None
        and post_residual_addition is None
    )
    if not covered:
        return self.forward_native(x, residual, post_residual_addition)
    if residual is None:
        return ops.rms_norm(x, self.weight, self.variance_epsilon)
    return ops.add_rms_norm(x, residual, self.weight, self.variance_epsilon)


def _rotary_embedding(self, positions, query, key, offsets=None, fused_set_kv_buffer_arg=None):
    if offsets is not None or fused_set_kv_buffer_arg is not None or positions.dim() != 1:
        return self.forward_native(positions, query, key, offsets, fused_set_kv_buffer_arg)
    tokens = positions.shape[0]
    q, k = ops.rotary_embedding(
        positions,
        query.reshape(tokens, -1),
        key.reshape(tokens, -1),
        self.cos_sin_cache,
        self.head_size,
        self.is_neox_style,
    )
    return q.view(query.shape), k.view(key.shape)


def _topk(self, hidden_states, router_logits, **options):
    config = self.topk_config
    covered = (
        config.scoring_func == "softmax"
        and not config.use_grouped_topk
        and config.custom_routing_function is None
        and config.correction_bias is None
        and config.num_shared_topk_slots == 0
        and not config.apply_routed_scaling_factor_on_output
        and all(value is None for value in options.values())
    )
    if not covered:
        return self.forward_native(hidden_states, router_logits, **options)
    weights, ids = ops.topk_softmax(router_logits, config.top_k, config.renormalize)
    return StandardTopKOutput(weights, ids, router_logits)


def _fused_moe(self, layer, dispatch_output):
    """SGLang's own decomposition asks the host how many tokens an expert has, so it cannot be traced."""
    config = layer.moe_runner_config
    odd = {
        "a bias": getattr(layer, "w13_weight_bias", None) is not None,
        f"the activation {config.activation}": config.activation not in MOE_ACTIVATIONS,
        "experts without a gate": not config.is_gated,
        "weights on the experts' input": config.apply_router_weight_on_input,
        "experts' outputs apart": config.no_combine,
        "a limited activation": any(
            value is not None for value in (config.gemm1_alpha, config.gemm1_clamp_limit, config.swiglu_limit)
        ),
        "interleaved weights": self.w13_swiglu_interleaved,
        "experts elsewhere": layer.num_experts != layer.w13_weight.shape[0],
    }
    if any(odd.values()):
        what = ", ".join(name for name, present in odd.items() if present)
        raise CompileError(
            Problem(f"mixture of experts in layer {layer.layer_id} with {what} is not supported")
        )
    weights, ids, _ = dispatch_output.topk_output
    x = ops.fused_moe(
        dispatch_output.hidden_states,
        weights,
        ids,
        layer.w13_weight,
        layer.w2_weight,
        activation=config.activation,
    )
    return StandardCombineInput(hidden_states=x)


def _plain_rotary_classes(base: type):
    """Subclasses that only fill the cache differently and rotate as the base does."""
    for subclass in base.__subclasses__():
        if subclass.forward_native is base.forward_native:
            yield subclass
        yield from _plain_rotary_classes(subclass)
