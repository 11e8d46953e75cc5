"""The `opennpu::` operators (`compiler/frontend/ops/`), which stay whole."""

from opennpu.compiler.conversions.table import converts, rank
from opennpu.dialects import npu


@converts("opennpu.matmul")
def matmul(x, w, bias, residual, activation, transpose_w):
    """The epilogue is written at once; a gate needs w's rows."""
    if activation in npu.GATES and not transpose_w:
        w, transpose_w = npu.transpose(w, [1, 0]), True
    steps = {"bias": bias is not None, activation: activation != "none", "residual": residual is not None}
    extra = [value for value in (bias, residual) if value is not None]
    return npu.matmul(x, w, transpose_w, [step for step, present in steps.items() if present], extra)


@converts("opennpu.rms_norm")
def rms_norm(x, w, eps):
    return npu.rms_norm(x, w, eps)


@converts("opennpu.add_rms_norm")
def add_rms_norm(x, residual, w, eps):
    return list(npu.add_rms_norm(x, residual, w, eps))


@converts("opennpu.layer_norm")
def layer_norm(x, w, b, eps):
    return npu.layer_norm(x, w, npu.constant(0.0, npu.dims(w), npu.dtype(w)) if b is None else b, eps)


@converts("opennpu.silu_and_mul")
def silu_and_mul(x):
    return npu.silu_and_mul(x)


@converts("opennpu.gelu_and_mul")
def gelu_and_mul(x, approximate):
    return npu.gelu_and_mul(x, approximate)


@converts("opennpu.rotary_embedding")
def rotary_embedding(positions, q, k, cache, head_dim, neox):
    return [npu.rope(x, positions, cache, head_dim, neox) for x in (q, k)]


@converts("opennpu.embedding")
def embedding(table, ids):
    return npu.gather(table, ids)


@converts("opennpu.argmax")
def argmax(x):
    return npu.reduce("argmax", x, rank(x) - 1)
