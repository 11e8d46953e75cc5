"""Mixture of experts: routing, and products of rows in the order of their experts."""

from opennpu.dialects.npu.dialect import (
    FLOATS,
    NpuOp,
    Tensor,
    TensorResult,
    dims,
    dtype,
    require,
    require_dims,
    require_dtype,
    require_one_of,
)
from opennpu.dialects.npu.products import ACTIVATIONS, GATES
from opennpu.dialects.symbols import Dim, dim, exact_div
from torch_mlir import ir
from torch_mlir.dialects.ext import Pure
from torch_mlir.ir import ArrayAttr, IntegerAttr, StringAttr


class TopkSoftmaxOp(NpuOp, name="topk_softmax", traits=[Pure]):
    """logits[T,E] → weights[T,k] (f32), ids[T,k] (i32): the softmax of each row in f32, its `k`
    greatest in descending order, of equals the one that comes first.

    `renormalize` divides the weights by their sum.
    """

    logits: Tensor
    k: IntegerAttr
    renormalize: IntegerAttr
    weights: TensorResult
    ids: TensorResult

    def check(self):
        require_dtype("logits", self.logits, *FLOATS)
        require_dtype("weights", self.weights, "f32")
        require_dtype("ids", self.ids, "i32")
        require(len(dims(self.logits)) == 2, "logits has no two dimensions")
        (rows, experts), k = dims(self.logits), self.k.value
        require(k >= 1, f"k is {k}, expected at least 1")
        require(not isinstance(experts, int) or k <= experts, f"k is {k}, more than the {experts} experts")
        for name, result in (("weights", self.weights), ("ids", self.ids)):
            require_dims(name, result, (rows, k))


class SortExpertsOp(NpuOp, name="sort_experts", traits=[Pure]):
    """ids[T,k] → rows[k,T], matrices[E], offsets[E + 1]: a stable counting sort of all choices by expert.

    ids[t,j] is the expert, one of `experts`, that token t takes as its choice j; all are i32.
    The choice is row rows[j,t] of the sorted ones. Group g is expert matrices[g] and has the rows
    offsets[g] … offsets[g + 1] - 1: first the experts that were chosen, in ascending order, then
    groups without rows, whose matrices[g] is 0.
    """

    ids: Tensor
    experts: IntegerAttr
    rows: TensorResult
    matrices: TensorResult
    offsets: TensorResult

    def check(self):
        for name in ("ids", "rows", "matrices", "offsets"):
            require_dtype(name, getattr(self, name), "i32")
        require(len(dims(self.ids)) == 2, "ids has no two dimensions")
        tokens, k = dims(self.ids)
        require(isinstance(k, int), f"the number of choices is {k}, expected a number")
        require_dims("rows", self.rows, (k, tokens))
        require_dims("matrices", self.matrices, (self.experts.value,))
        require_dims("offsets", self.offsets, (self.experts.value + 1,))


class ScatterRowsOp(NpuOp, name="scatter_rows", traits=[Pure]):
    """x[T,H], rows[k,T] (i32) → y[k·T,H]: row rows[j,t] of y is row t of x. rows is a permutation."""

    x: Tensor
    rows: Tensor
    y: TensorResult

    def check(self):
        require_dtype("rows", self.rows, "i32")
        require_dtype("y", self.y, dtype(self.x))
        require_dims("y", self.y, scattered_dims(self.x, self.rows))


class GroupedMatmulOp(NpuOp, name="grouped_matmul", traits=[Pure]):
    """x[R,K], w[E,N,K], offsets[E + 1], matrices[E] (i32) → y[R,N]: row r of x times w[matrices[g]]ᵀ
    for the rows offsets[g] … offsets[g + 1] - 1 of every group g, accumulated in f32.

    Without the optional `matrices` group g takes w[g]; with it the groups without rows come last.
    `epilogue`: at most one name, an activation or a gate as in `matmul`; with a gate the rows of
    w[e] are gate, then up, and y has N/2 columns. x and w have one float dtype; y may be f32 or bf16.
    """

    x: Tensor
    w: Tensor
    offsets: Tensor
    matrices: Tensor | None
    epilogue: ArrayAttr
    y: TensorResult

    @property
    def extra(self):
        return []

    @property
    def steps(self) -> list[str]:
        return [StringAttr(step).value for step in self.epilogue]

    def check(self):
        require_dtype("x", self.x, *FLOATS)
        require_dtype("w", self.w, dtype(self.x))
        require_dtype("offsets", self.offsets, "i32")
        require_dtype("y", self.y, *FLOATS)
        require(len(self.steps) <= 1, "has more than one epilogue step")
        for step in self.steps:
            require_one_of("epilogue step", step, (*ACTIVATIONS, *GATES))
        require(len(dims(self.w)) == 3, "w has no three dimensions")
        require_dims("offsets", self.offsets, (dim(dims(self.w)[0] + 1),))
        if self.matrices is not None:
            require_dtype("matrices", self.matrices, "i32")
            require_dims("matrices", self.matrices, dims(self.w)[:1])
        require_dims("y", self.y, grouped_dims(self.x, self.w, self.steps))


class CombineRowsOp(NpuOp, name="combine_rows", traits=[Pure]):
    """x[k·T,H], rows[k,T] (i32), weights[T,k] → y[T,H]: Σ over j of weights[t,j] · x[rows[j,t]],
    in f32, j ascending, rounded once."""

    x: Tensor
    rows: Tensor
    weights: Tensor
    y: TensorResult

    def check(self):
        require_dtype("x", self.x, *FLOATS)
        require_dtype("rows", self.rows, "i32")
        require_dtype("weights", self.weights, *FLOATS)
        require_dtype("y", self.y, dtype(self.x))
        require(len(dims(self.rows)) == 2, "rows has no two dimensions")
        k, tokens = dims(self.rows)
        require_dims("weights", self.weights, (tokens, k))
        require_dims("y", self.y, (tokens, dims(self.x)[1]))
        require_dims("x", self.x, scattered_dims(self.y, self.rows))


def scattered_dims(x: ir.Value, rows: ir.Value) -> tuple[Dim, ...]:
    """[k·T, H] of x[T, H] and rows[k, T]."""
    require(len(dims(x)) == 2 and len(dims(rows)) == 2, "x and rows have no two dimensions")
    (tokens, width), (k, own) = dims(x), dims(rows)
    require(tokens == own, f"x has {tokens} rows, rows {own}")
    return dim(k * tokens), width


def grouped_dims(x: ir.Value, w: ir.Value, steps: list[str]) -> tuple[Dim, ...]:
    """The extents of y."""
    (rows, k), (_, columns, depth) = dims(x), dims(w)
    require(k == depth, f"contraction of {k} in x with {depth} in w")
    return rows, exact_div(columns, 2) if any(step in GATES for step in steps) else columns
