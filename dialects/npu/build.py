"""Builders of `npu` ops: plain Python values for attributes, result types inferred.

Each builds at the current insertion point and location and returns the result (a tuple
where an op has several). Impossible shapes raise ValueError or Invalid.
"""

from collections.abc import Callable, Sequence

from opennpu.dialects.npu import ops
from opennpu.dialects.npu.dialect import COMPARISONS, broadcast, dims, dtype, fill_slots
from opennpu.dialects.npu.experts import grouped_dims, scattered_dims
from opennpu.dialects.npu.movement import CONCAT_SLOTS
from opennpu.dialects.npu.products import EXTRA_SLOTS, GATES, product_dims
from opennpu.dialects.npu.structure import SLOTS
from opennpu.dialects.symbols import Dim, dim, exact_div, tensor_type
from torch_mlir import ir

__all__ = [
    "add_rms_norm",
    "binary",
    "broadcast_to",
    "capture",
    "cast",
    "combine_rows",
    "concat",
    "constant",
    "cumsum",
    "dense_attention",
    "element_type",
    "extent",
    "f32_attr",
    "fused",
    "gather",
    "gelu_and_mul",
    "grouped_matmul",
    "i64_attr",
    "iota",
    "kv_write",
    "layer_norm",
    "like",
    "matmul",
    "paged_attention",
    "put_rows",
    "reduce",
    "repeat",
    "reshape",
    "rms_norm",
    "rope",
    "rope_kv_write",
    "scatter_rows",
    "select",
    "silu_and_mul",
    "slice_",
    "softmax",
    "sort_experts",
    "strings_attr",
    "take",
    "topk_softmax",
    "transpose",
    "unary",
    "varlen_attention",
    "yield_",
]

Value = ir.Value


def element_type(name: str) -> ir.Type:
    """The MLIR type of a dtype's name."""
    return ir.Type.parse(name)


def i64_attr(value: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), int(value))


def f32_attr(value: float) -> ir.FloatAttr:
    return ir.FloatAttr.get_f32(float(value))


def strings_attr(values: Sequence[str]) -> ir.ArrayAttr:
    return ir.ArrayAttr.get([ir.StringAttr.get(v) for v in values])


def like(x: Value, shape: Sequence[Dim] | None = None, element: str | None = None) -> ir.Type:
    """x's type with another shape, another dtype, or both."""
    return tensor_type(
        dims(x) if shape is None else shape, element_type(dtype(x) if element is None else element)
    )


# ---- element by element


def constant(value: float | int | bool, shape: Sequence[Dim], element: str) -> Value:
    kind = element_type(element)
    is_float = not isinstance(kind, ir.IntegerType)
    value = bool(value) if element == "i1" else value
    attr = ir.FloatAttr.get(kind, float(value)) if is_float else ir.IntegerAttr.get(kind, int(value))
    return ops.ConstantOp(attr, tensor_type(shape, kind)).y


def extent(value: Dim, element: str) -> Value:
    """An extent as a tensor without dimensions."""
    if isinstance(value, int):
        return constant(value, [], element)
    return ops.ExtentOp(ir.StringAttr.get(str(value)), tensor_type([], element_type(element))).y


def iota(shape: Sequence[Dim], dim_: int, element: str, start: int = 0, step: int = 1) -> Value:
    result = tensor_type(shape, element_type(element))
    return ops.IotaOp(i64_attr(dim_), i64_attr(start), i64_attr(step), result).y


def unary(op: str, x: Value) -> Value:
    return ops.UnaryOp(x, ir.StringAttr.get(op), x.type).y


def binary(op: str, a: Value, b: Value) -> Value:
    element = "i1" if op in COMPARISONS else dtype(a)
    return ops.BinaryOp(a, b, ir.StringAttr.get(op), like(a, broadcast(dims(a), dims(b)), element)).y


def select(cond: Value, a: Value, b: Value) -> Value:
    return ops.SelectOp(cond, a, b, like(a, broadcast(dims(cond), dims(a), dims(b)))).y


def cast(x: Value, element: str) -> Value:
    """x itself where it has the dtype."""
    return x if dtype(x) == element else ops.CastOp(x, like(x, element=element)).y


# ---- along a dimension


def reduce(op: str, x: Value, dim_: int, keepdim: bool = False) -> Value:
    shape = dims(x)
    shape = shape[:dim_] + ((1,) if keepdim else ()) + shape[dim_ + 1 :]
    result = like(x, shape, "i64" if op == "argmax" else None)
    return ops.ReduceOp(x, ir.StringAttr.get(op), i64_attr(dim_), ir.BoolAttr.get(keepdim), result).y


def cumsum(x: Value) -> Value:
    return ops.CumsumOp(x, x.type).y


def softmax(x: Value) -> Value:
    return ops.SoftmaxOp(x, x.type).y


def rms_norm(x: Value, w: Value, eps: float) -> Value:
    return ops.RmsNormOp(x, w, f32_attr(eps), x.type).y


def layer_norm(x: Value, w: Value, b: Value, eps: float) -> Value:
    return ops.LayerNormOp(x, w, b, f32_attr(eps), x.type).y


def add_rms_norm(x: Value, residual: Value, w: Value, eps: float) -> tuple[Value, Value]:
    """(normed, sum)"""
    op = ops.AddRmsNormOp(x, residual, w, f32_attr(eps), x.type, x.type)
    return op.y, op.sum


def _halved(x: Value) -> ir.Type:
    *rows, width = dims(x)
    return like(x, [*rows, exact_div(width, 2)])


def silu_and_mul(x: Value) -> Value:
    return ops.SiluAndMulOp(x, _halved(x)).y


def gelu_and_mul(x: Value, approximate: str = "none") -> Value:
    return ops.GeluAndMulOp(x, ir.StringAttr.get(approximate), _halved(x)).y


# ---- matrix products


def matmul(
    x: Value,
    w: Value,
    transpose_w: bool = False,
    epilogue: Sequence[str] = (),
    extra: Sequence[Value] = (),
    element: str | None = None,
) -> Value:
    """x·w or x·wᵀ through the epilogue; `element` is the result's dtype, by default x's."""
    *rows, columns = product_dims(dims(x), dims(w), transpose_w)
    if any(step in GATES for step in epilogue):
        columns = exact_div(columns, 2)
    return ops.MatmulOp(
        x,
        w,
        **fill_slots("extra", EXTRA_SLOTS, extra),
        transpose_w=ir.BoolAttr.get(transpose_w),
        epilogue=strings_attr(epilogue),
        y=like(x, [*rows, columns], element),
    ).y


# ---- mixture of experts


def topk_softmax(logits: Value, k: int, renormalize: bool = False) -> tuple[Value, Value]:
    """(weights, ids)"""
    shape = [dims(logits)[0], k]
    results = [like(logits, shape, element) for element in ("f32", "i32")]
    op = ops.TopkSoftmaxOp(logits, i64_attr(k), ir.BoolAttr.get(renormalize), *results)
    return op.weights, op.ids


def sort_experts(ids: Value, experts: int) -> tuple[Value, Value, Value]:
    """(rows, matrices, offsets)"""
    results = [like(ids, shape) for shape in (dims(ids)[::-1], [experts], [experts + 1])]
    op = ops.SortExpertsOp(ids, i64_attr(experts), *results)
    return op.rows, op.matrices, op.offsets


def scatter_rows(x: Value, rows: Value) -> Value:
    return ops.ScatterRowsOp(x, rows, like(x, scattered_dims(x, rows))).y


def grouped_matmul(
    x: Value, w: Value, offsets: Value, epilogue: Sequence[str] = (), matrices: Value | None = None
) -> Value:
    result = like(x, grouped_dims(x, w, list(epilogue)))
    return ops.GroupedMatmulOp(x, w, offsets, matrices=matrices, epilogue=strings_attr(epilogue), y=result).y


def combine_rows(x: Value, rows: Value, weights: Value) -> Value:
    return ops.CombineRowsOp(x, rows, weights, like(x, [dims(weights)[0], dims(x)[1]])).y


# ---- movement: where the result would be the operand, the operand itself


def reshape(x: Value, shape: Sequence[Dim]) -> Value:
    return x if dims(x) == tuple(shape) else ops.ReshapeOp(x, like(x, shape)).y


def transpose(x: Value, perm: Sequence[int]) -> Value:
    if list(perm) == list(range(len(perm))):
        return x
    shape = dims(x)
    attr = ir.ArrayAttr.get([i64_attr(p) for p in perm])
    return ops.TransposeOp(x, attr, like(x, [shape[p] for p in perm])).y


def broadcast_to(x: Value, shape: Sequence[Dim]) -> Value:
    return x if dims(x) == tuple(shape) else ops.BroadcastOp(x, like(x, shape)).y


def slice_(x: Value, dim_: int, offset: int, size: Dim, stride: int = 1) -> Value:
    shape = dims(x)
    if offset == 0 and size == shape[dim_] and stride == 1:
        return x
    result = like(x, [*shape[:dim_], size, *shape[dim_ + 1 :]])
    return ops.SliceOp(x, i64_attr(dim_), i64_attr(offset), i64_attr(stride), result).y


def concat(xs: Sequence[Value], dim_: int) -> Value:
    """Nests where there are more operands than slots."""
    if len(xs) == 1:
        return xs[0]
    if len(xs) > CONCAT_SLOTS:
        groups = [xs[i : i + CONCAT_SLOTS] for i in range(0, len(xs), CONCAT_SLOTS)]
        return concat([concat(group, dim_) for group in groups], dim_)
    shape = dims(xs[0])
    total = dim(sum(dims(x)[dim_] for x in xs))
    result = like(xs[0], [*shape[:dim_], total, *shape[dim_ + 1 :]])
    return ops.ConcatOp(**fill_slots("xs", CONCAT_SLOTS, xs), dim=i64_attr(dim_), y=result).y


def gather(table: Value, index: Value) -> Value:
    return ops.GatherOp(table, index, like(table, dims(index) + dims(table)[1:])).y


def put_rows(x: Value, rows: Value, values: Value, leading: int = 1) -> Value:
    return ops.PutRowsOp(x, rows, values, i64_attr(leading), like(x, dims(x))).y


def take(x: Value, index: Value) -> Value:
    return ops.TakeOp(x, index, like(x, dims(index))).y


# ---- attention


def rope(x: Value, positions: Value, cache: Value, head_dim: int, neox: bool) -> Value:
    return ops.RopeOp(x, positions, cache, i64_attr(head_dim), ir.BoolAttr.get(neox), x.type).y


def kv_write(
    k: Value, v: Value, slots: Value, *, layer: int, kv_heads: int, head_dim: int, v_head_dim: int
) -> None:
    ops.KvWriteOp(k, v, slots, i64_attr(layer), i64_attr(kv_heads), i64_attr(head_dim), i64_attr(v_head_dim))


def paged_attention(
    q: Value,
    block_table: Value,
    seq_lens: Value,
    q_start: Value,
    *,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    v_head_dim: int,
    scale: float,
    logit_cap: float = 0.0,
    window: int = 0,
) -> Value:
    sizes = [i64_attr(n) for n in (layer, heads, kv_heads, head_dim, v_head_dim)]
    result = like(q, [dims(q)[0], heads * v_head_dim])
    return ops.PagedAttentionOp(
        q,
        block_table,
        seq_lens,
        q_start,
        *sizes,
        f32_attr(scale),
        f32_attr(logit_cap),
        i64_attr(window),
        result,
    ).o


def varlen_attention(
    q: Value,
    k: Value,
    v: Value,
    q_start: Value,
    k_start: Value,
    *,
    scale: float,
    causal: bool,
    logit_cap: float = 0.0,
    window: int = 0,
) -> Value:
    options = f32_attr(scale), f32_attr(logit_cap), ir.BoolAttr.get(causal), i64_attr(window)
    result = like(q, [*dims(q)[:-1], dims(v)[-1]])
    return ops.VarlenAttentionOp(q, k, v, q_start, k_start, *options, result).o


def dense_attention(q: Value, k: Value, v: Value, mask: Value | None, *, scale: float, causal: bool) -> Value:
    result = like(q, [*dims(q)[:-1], dims(v)[-1]])
    return ops.DenseAttentionOp(q, k, v, mask, f32_attr(scale), ir.BoolAttr.get(causal), result).o


def rope_kv_write(
    qkv: Value,
    positions: Value,
    cache: Value,
    slots: Value,
    *,
    layer: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    v_head_dim: int,
    neox: bool,
) -> Value:
    sizes = [i64_attr(n) for n in (layer, heads, kv_heads, head_dim, v_head_dim)]
    result = like(qkv, [dims(qkv)[0], heads * head_dim])
    return ops.RopeKvWriteOp(qkv, positions, cache, slots, *sizes, ir.BoolAttr.get(neox), result).q


# ---- debugging


def capture(x: Value, output: str, layer: int = 0) -> None:
    ops.CaptureOp(x, ir.StringAttr.get(output), i64_attr(layer))


# ---- regions


def yield_(values: Sequence[Value]) -> None:
    ops.YieldOp(**fill_slots("values", SLOTS, values))


def fused(result_types: Sequence[ir.Type], body: Callable[[], Sequence[Value]]) -> list[Value]:
    """`body` builds the region's ops and returns the values to yield."""
    op = ops.FusedOp(**fill_slots("outs", SLOTS, result_types))
    with ir.InsertionPoint(op.body.blocks.append()):
        yield_(body())
    return list(op.results)


def repeat(
    inits: Sequence[Value],
    count: int,
    params: Sequence[Sequence[str]],
    param_types: Sequence[ir.Type],
    body: Callable[[Value, list[Value], list[Value]], Sequence[Value]],
) -> list[Value]:
    """`body(layer, carried, params)` builds one layer and returns the carried values."""
    types = [v.type for v in inits]
    op = ops.RepeatOp(
        **fill_slots("inits", SLOTS, inits),
        count=i64_attr(count),
        params=ir.ArrayAttr.get([strings_attr(names) for names in params]),
        **fill_slots("outs", SLOTS, types),
    )
    block = op.body.blocks.append(element_type("i64"), *types, *param_types)
    layer, *rest = block.arguments
    with ir.InsertionPoint(block):
        yield_(body(layer, rest[: len(inits)], rest[len(inits) :]))
    return list(op.results)
