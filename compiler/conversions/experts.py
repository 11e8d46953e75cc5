"""Mixture of experts: the whole layer as a sort by expert, two grouped products and a weighted sum."""

from opennpu.compiler.conversions.table import converts, static
from opennpu.dialects import npu


@converts("opennpu.topk_softmax")
def topk_softmax(logits, k, renormalize):
    return list(npu.topk_softmax(logits, k, renormalize))


@converts("opennpu.grouped_matmul")
def grouped_matmul(x, w, offsets, activation):
    epilogue = [] if activation == "none" else [activation]
    return npu.grouped_matmul(x, w, npu.cast(offsets, "i32"), epilogue)


@converts("opennpu.fused_moe")
def fused_moe(x, weights, ids, w13, w2, activation):
    experts = static(npu.dims(w13)[0], "the number of experts")
    rows, matrices, offsets = npu.sort_experts(npu.cast(ids, "i32"), experts)
    x = npu.scatter_rows(x, rows)
    x = npu.grouped_matmul(x, w13, offsets, [f"gate_{activation}"], matrices)
    x = npu.grouped_matmul(x, w2, offsets, matrices=matrices)
    return npu.combine_rows(x, rows, weights)
