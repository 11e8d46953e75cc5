"""The `opennpu::` operators (`compiler/frontend/ops/`), which stay whole."""

from opennpu.compiler.conversions.table import converts
from opennpu.dialects import npu


@converts("opennpu.rms_norm")
def rms_norm(x, w, eps):
    return npu.rms_norm(x, w, eps)


@converts("opennpu.add_rms_norm")
def add_rms_norm(x, residual, w, eps):
    return list(npu.add_rms_norm(x, residual, w, eps))


@converts("opennpu.silu_and_mul")
def silu_and_mul(x):
    return npu.silu_and_mul(x)


@converts("opennpu.gelu_and_mul")
def gelu_and_mul(x, approximate):
    return npu.gelu_and_mul(x, approximate)


@converts("opennpu.rotary_embedding")
def rotary_embedding(positions, q, k, cache, head_dim, neox):
    return [npu.rope(x, positions, cache, head_dim, neox) for x in (q, k)]
