"""Mixture of experts, in PyTorch."""

from itertools import pairwise

import torch
from opennpu.compiler.interpreters.table import activated, means, wide
from opennpu.compiler.rewriting import attr


@means("npu.topk_softmax")
def _topk_softmax(machine, op, logits):
    order = torch.sort(wide(logits).softmax(-1), dim=-1, descending=True, stable=True)
    weights, ids = (x[:, : attr(op, "k")] for x in order)
    return weights / weights.sum(-1, keepdim=True) if attr(op, "renormalize") else weights, ids


@means("npu.sort_experts")
def _sort_experts(machine, op, ids):
    experts, order = attr(op, "experts"), torch.sort(ids.flatten().long(), stable=True).indices
    chosen, counts = ids.unique(return_counts=True)
    matrices = torch.zeros(experts, dtype=torch.int32)
    offsets = torch.full((experts + 1,), ids.numel())
    matrices[: len(chosen)] = chosen
    offsets[: len(chosen)] = counts.cumsum(0) - counts
    return order.argsort().view(ids.shape).T, matrices, offsets


@means("npu.scatter_rows")
def _scatter_rows(machine, op, x, rows):
    y = x.new_empty(rows.numel(), x.shape[1])
    y[rows.long()] = x
    return y


@means("npu.grouped_matmul")
def _grouped_matmul(machine, op, x, w, offsets, matrices=None):
    w = w if matrices is None else w[matrices.long()]
    parts = [wide(x)[a:b] @ wide(matrix).T for matrix, (a, b) in zip(w, pairwise(offsets), strict=True)]
    y = torch.cat(parts)
    for step in attr(op, "epilogue"):
        y = activated(step, y)
    return y


@means("npu.combine_rows")
def _combine_rows(machine, op, x, rows, weights):
    return (wide(x)[rows.long()] * wide(weights).T[..., None]).sum(0)
