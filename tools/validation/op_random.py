"""Random cases of every op, in every dtype that it takes."""

import math
from collections.abc import Callable, Iterator
from random import Random

import torch
from opennpu.dialects import load_all, npu
from opennpu.dialects.npu.dialect import BINARY, COMPARISONS, INTEGER_UNARY, LOGICAL, REDUCE, UNARY
from opennpu.dialects.symbols import tensor_type
from opennpu.tools.validation.one_op import Case
from opennpu.tools.validation.op_bounds import label_of
from opennpu.tools.validation.op_counts import counts
from opennpu.tools.validation.op_values import values
from torch_mlir import ir
from torch_mlir.dialects import func

FLOATS = ("f32", "bf16")
POSITIVE = ("log", "sqrt", "rsqrt", "recip")


def at_random(seed: int, rounds: int = 2) -> Iterator[Case]:
    """Every op in every dtype that it takes, `rounds` times each."""
    for round_ in range(rounds):
        for name, make in MAKERS.items():
            for dtype in dtypes_of(name):
                yield make(Maker(name, dtype, seed * 1000 + round_))


def dtypes_of(label: str) -> tuple[str, ...]:
    """Those that an op is tried in."""
    name, _, kind = label.partition(" ")
    if name == "unary":
        integers = ("i32",) if kind in INTEGER_UNARY else ()
        return () if kind == "not" else (*FLOATS, *integers)
    if name == "binary":
        return ("i1",) if kind in LOGICAL else ("f32",) if kind == "pow" else (*FLOATS, "i32", "i64")
    if label in ("select", "concat", "transpose", "slice", "broadcast", "reshape", "gather"):
        return (*FLOATS, "i32")
    return ("i32",) if label == "sort_experts" else FLOATS


class Maker:
    """The shapes and values of one random case."""

    def __init__(self, label: str, dtype: str, seed: int):
        self.label, self.dtype = label, dtype
        self.random = Random(f"{label} {dtype} {seed}")
        self.generator = torch.Generator().manual_seed(self.random.randrange(2**31))

    def size(self, most: int = 70) -> int:
        return self.random.randint(1, most)

    def shape(self, rank: int = 2) -> list[int]:
        return [self.size(9) for _ in range(rank - 1)] + [self.size(300)]

    def case(self, build, *shapes, params=(), domain: Callable = lambda x: x, first: str = "") -> Case:
        """`shapes` are extents, in the maker's dtype, or (extents, element type)."""
        full = [shape if isinstance(shape, tuple) else (shape, self.dtype) for shape in shapes]

        def types() -> list[ir.Type]:
            return [tensor_type(shape, ir.Type.parse(e)) for shape, e in full]

        with load_all(ir.Context()), ir.Location.unknown():
            module = ir.Module.create()
            with ir.InsertionPoint(module.body):
                main = func.FuncOp("main", (types(), []))
            with ir.InsertionPoint(main.add_entry_block()):
                build(*main.entry_block.arguments)
            op = list(main.entry_block.operations)[-1].operation
            label = label_of(op)
            found = [domain(x) for x in values(op, full, self.generator)]
            counted = counts(op, found, {})
        return Case(label, first or self.dtype, build, types, found, frozenset(params), {}, counted)


def _unary(m: Maker) -> Case:
    kind = m.label.partition(" ")[2]
    domain = (lambda x: x.abs() + 0.5) if kind in POSITIVE else (lambda x: x * 3)
    return m.case(lambda x: [npu.unary(kind, x)], m.shape(), domain=domain)


def _binary(m: Maker) -> Case:
    kind = m.label.partition(" ")[2]
    shape = m.shape(3)
    other = [1 if m.random.random() < 0.3 else n for n in shape]
    apart = kind in ("div", "mod", "pow")
    domain = (lambda x: x if x.dtype == torch.bool else x.abs() + 1) if apart else (lambda x: x)
    first = "i1" if kind in COMPARISONS else m.dtype
    return m.case(lambda a, b: [npu.binary(kind, a, b)], shape, other, domain=domain, first=first)


def _reduce(m: Maker) -> Case:
    kind = m.label.partition(" ")[2]
    shape = m.shape(3)
    dim = m.random.randrange(3)
    first = "i64" if kind == "argmax" else m.dtype
    return m.case(lambda x: [npu.reduce(kind, x, dim, keepdim=False)], shape, first=first)


def _rows(build, *, vectors: int = 0, even: bool = False):
    """An op along rows, with this many operands of one row."""

    def make(m: Maker) -> Case:
        shape = m.shape()
        if even:
            shape[-1] += shape[-1] % 2
        return m.case(lambda *xs: _list(build(*xs)), shape, *[[shape[-1]]] * vectors)

    return make


def _add_norm(m: Maker) -> Case:
    shape = m.shape()
    return m.case(lambda x, r, w: list(npu.add_rms_norm(x, r, w, 1e-5)), shape, shape, [shape[-1]])


def _matmul(epilogue=()):
    def make(m: Maker) -> Case:
        rows, k, n = m.size(), m.size(400), 2 * m.size(150)
        residual = [[rows, n]] if "residual" in epilogue else []
        bias = [[n]] if "bias" in epilogue else []
        build = lambda x, w, *extra: [npu.matmul(x, w, True, list(epilogue), list(extra))]  # noqa: E731
        return m.case(build, [rows, k], [n, k], *bias, *residual, params=[1])

    return make


def _grouped(m: Maker) -> Case:
    rows, k, n, experts = m.size(), m.size(200), m.size(90), m.random.randint(1, 5)
    build = lambda x, w, o, g: [npu.grouped_matmul(x, w, o, [], g)]  # noqa: E731
    shapes = [rows, k], [experts, n, k], ([experts + 1], "i32"), ([experts], "i32")
    return m.case(build, *shapes, params=[1])


def _rope(m: Maker) -> Case:
    tokens, heads, dim, neox = m.size(40), m.size(6), 2 * m.size(40), m.random.random() < 0.5
    rotated = 2 * m.random.randint(1, dim // 2)
    shapes = [tokens, heads * dim], ([tokens], "i64"), ([64, rotated], "f32")
    return m.case(lambda x, p, c: [npu.rope(x, p, c, dim, neox)], *shapes)


def _kv(m: Maker) -> dict[str, int]:
    return {
        "layer": 0,
        "kv_heads": m.random.choice([1, 2, 3]),
        "head_dim": 8 * m.size(10),
        "v_head_dim": 8 * m.size(10),
    }


def _kv_write(m: Maker) -> Case:
    kv, tokens = _kv(m), m.size()
    shapes = (
        [tokens, kv["kv_heads"] * kv["head_dim"]],
        [tokens, kv["kv_heads"] * kv["v_head_dim"]],
        ([tokens], "i64"),
    )
    return m.case(lambda k, v, s: npu.kv_write(k, v, s, **kv) or [], *shapes)


def _rope_kv_write(m: Maker) -> Case:
    kv, tokens = _kv(m), m.size()
    heads = kv["kv_heads"] * m.random.choice([1, 3])
    width = (heads + kv["kv_heads"]) * kv["head_dim"] + kv["kv_heads"] * kv["v_head_dim"]
    shapes = [tokens, width], ([tokens], "i64"), ([64, kv["head_dim"]], "f32"), ([tokens], "i64")
    return m.case(lambda x, p, c, s: [npu.rope_kv_write(x, p, c, s, heads=heads, neox=True, **kv)], *shapes)


def _paged(m: Maker) -> Case:
    kv, tokens, sequences = _kv(m), m.size(60), m.random.randint(1, 4)
    heads = kv["kv_heads"] * m.random.choice([1, 3])
    options = {"heads": heads, "scale": kv["head_dim"] ** -0.5, "window": m.random.choice([0, 9]), **kv}
    shapes = (
        [tokens, heads * kv["head_dim"]],
        ([sequences, 5], "i32"),
        ([sequences], "i64"),
        ([sequences + 1], "i64"),
    )
    return m.case(lambda q, t, n, s: [npu.paged_attention(q, t, n, s, **options)], *shapes)


def _varlen(m: Maker) -> Case:
    tokens, heads, groups, dim, sequences = (
        m.size(60),
        m.random.choice([1, 2]),
        m.random.choice([1, 3]),
        8 * m.size(8),
        3,
    )
    q, k = [tokens, heads * groups, dim], [tokens + 5, heads, dim]
    starts = ([sequences + 1], "i64")
    options = {"scale": dim**-0.5, "causal": m.random.random() < 0.5}
    return m.case(lambda *xs: [npu.varlen_attention(*xs, **options)], q, k, k, starts, starts)


def _dense(m: Maker) -> Case:
    batch, heads, dim, n, keys = m.size(2), m.size(3), 8 * m.size(8), m.size(40), m.size(60)
    shapes = [batch, heads, n, dim], [batch, heads, keys, dim], [batch, heads, keys, dim]
    return m.case(
        lambda q, k, v: [npu.dense_attention(q, k, v, None, scale=dim**-0.5, causal=False)], *shapes
    )


def _topk(m: Maker) -> Case:
    experts = m.random.randint(4, 40)
    case = m.case(lambda x: list(npu.topk_softmax(x, 3, m.label == "topk_softmax")), [m.size(), experts])
    case.dtype = "f32"
    return case


def _sort(m: Maker) -> Case:
    return m.case(lambda ids: list(npu.sort_experts(ids, 7)), [m.size(), 2])


def _scatter(m: Maker) -> Case:
    tokens = m.size()
    return m.case(lambda x, r: [npu.scatter_rows(x, r)], [tokens, m.size(200)], ([2, tokens], "i32"))


def _put(m: Maker) -> Case:
    """The first half of the rows, in any order."""
    count, width = m.size(), m.size(200)
    shapes = [2 * count, width], ([count], "i32"), [count, width]
    return m.case(lambda x, r, v: [npu.put_rows(x, r, v)], *shapes)


def _combine(m: Maker) -> Case:
    tokens, k = m.size(), 3
    shapes = [k * tokens, m.size(200)], ([k, tokens], "i32"), ([tokens, k], "f32")
    return m.case(lambda x, r, w: [npu.combine_rows(x, r, w)], *shapes)


def _transpose(m: Maker) -> Case:
    return m.case(lambda x: [npu.transpose(x, [2, 0, 1])], m.shape(3))


def _reshape(m: Maker) -> Case:
    shape = m.shape(3)
    return m.case(lambda x: [npu.reshape(x, [math.prod(shape)])], shape)


def _broadcast(m: Maker) -> Case:
    shape = m.shape()
    return m.case(lambda x: [npu.broadcast_to(x, [3, *shape])], [1, shape[-1]])


def _slice(m: Maker) -> Case:
    return m.case(lambda x: [npu.slice_(x, 1, 3, 11)], [m.size(), 30])


def _concat(m: Maker) -> Case:
    rows = m.size()
    return m.case(lambda *xs: [npu.concat(xs, 1)], *[[rows, m.size(90)] for _ in range(3)])


def _gather(m: Maker) -> Case:
    return m.case(lambda t, i: [npu.gather(t, i)], [m.size(90), m.size(200)], ([m.size()], "i64"))


def _take(m: Maker) -> Case:
    rows = m.size()
    return m.case(lambda x, i: [npu.take(x, i)], [rows, m.size(90)], ([rows, m.size(40)], "i64"))


def _select(m: Maker) -> Case:
    shape = m.shape()
    return m.case(lambda c, a, b: [npu.select(c, a, b)], (shape, "i1"), shape, shape)


def _cast(m: Maker) -> Case:
    other = "bf16" if m.dtype == "f32" else "f32"
    return m.case(lambda x: [npu.cast(x, other)], m.shape(), first=other)


def _fused(m: Maker) -> Case:
    shape = m.shape()

    def build(x, y):
        def body():
            # Within ±1: exp multiplies a rounding of what it is of by its size, which the bound leaves out.
            return [npu.softmax(npu.binary("mul", npu.unary("tanh", x), npu.unary("sigmoid", y)))]

        return npu.fused([x.type], body)

    return m.case(build, shape, shape)


def _list(result) -> list[ir.Value]:
    return [result] if isinstance(result, ir.Value) else list(result)


MAKERS: dict[str, Callable[[Maker], Case]] = {
    **{f"unary {kind}": _unary for kind in UNARY},
    **{f"binary {kind}": _binary for kind in BINARY},
    **{f"reduce {kind}": _reduce for kind in REDUCE},
    "softmax": _rows(npu.softmax),
    "cumsum": _rows(npu.cumsum),
    "rms_norm": _rows(lambda x, w: npu.rms_norm(x, w, 1e-5), vectors=1),
    "layer_norm": _rows(lambda x, w, b: npu.layer_norm(x, w, b, 1e-5), vectors=2),
    "silu_and_mul": _rows(npu.silu_and_mul, even=True),
    "gelu_and_mul": _rows(lambda x: npu.gelu_and_mul(x, "none"), even=True),
    "add_rms_norm": _add_norm,
    "matmul": _matmul(),
    "matmul residual": _matmul(["bias", "residual"]),
    "matmul activation": _matmul(["bias", "gelu"]),
    "matmul gated": _matmul(["gate_silu"]),
    "grouped_matmul": _grouped,
    "rope": _rope,
    "kv_write": _kv_write,
    "rope_kv_write": _rope_kv_write,
    "paged_attention": _paged,
    "varlen_attention": _varlen,
    "dense_attention": _dense,
    "topk_softmax": _topk,
    "sort_experts": _sort,
    "scatter_rows": _scatter,
    "put_rows": _put,
    "combine_rows": _combine,
    "select": _select,
    "cast": _cast,
    "transpose": _transpose,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "slice": _slice,
    "concat": _concat,
    "gather": _gather,
    "take": _take,
    "fused": _fused,
}
"""What is made at random. constant, extent and iota are there as operands of others in every model."""
