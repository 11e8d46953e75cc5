"""SGLang's fused layers as single `opennpu::` operators, so that a trace keeps them whole.

A layer whose options an operator does not cover falls back to SGLang's own
decomposition, which is traced op by op.
"""

from opennpu.compiler.frontend import ops
from sglang.kernels.fused_op import BaseFusedOp
from sglang.srt.layers.activation import GeluAndMul, SiluAndMul
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.rotary_embedding import RotaryEmbedding
from torch import nn


def register(platform_key: str) -> None:
    """Tell SGLang to use the forwards below on the platform of this name."""
    forwards = {
        RMSNorm: _rms_norm,
        SiluAndMul: lambda self, x: ops.silu_and_mul(x),
        GeluAndMul: lambda self, x: ops.gelu_and_mul(x, self.approximate),
        RotaryEmbedding: _rotary_embedding,
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


def _plain_rotary_classes(base: type):
    """Subclasses that only fill the cache differently and rotate as the base does."""
    for subclass in base.__subclasses__():
        if subclass.forward_native is base.forward_native:
            yield subclass
        yield from _plain_rotary_classes(subclass)
