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


@converts("opennpu.paged_attention")
def paged_attention(
    q,
    k,
    v,
    slots,
    block_table,
    seq_lens,
    q_start,
    layer,
    heads,
    kv_heads,
    head_dim,
    v_head_dim,
    scale,
    logit_cap,
    window,
):
    sizes = dict(layer=layer, kv_heads=kv_heads, head_dim=head_dim, v_head_dim=v_head_dim)
    npu.kv_write(k, v, slots, **sizes)
    return npu.paged_attention(
        q,
        npu.cast(block_table, "i32"),
        seq_lens,
        q_start,
        heads=heads,
        scale=scale,
        logit_cap=logit_cap,
        window=window,
        **sizes,
    )
