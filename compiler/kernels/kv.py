"""The KV cache: where a layer's pages lie, and the kernel that writes K and V into them."""

from opennpu.compiler.kernels import movement
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.scalars import Index
from opennpu.compiler.kernels.tiling import core_rows, row_block
from opennpu.compiler.kernels.values import View, view_type
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe as place
from opennpu.dialects.symbols import dim
from torch_mlir import ir

LARGEST_PAGE = 128
"""Tokens; every page size divides it (docs/architecture.md)."""

KV_OPS = frozenset({"npu.kv_write", "npu.rope_kv_write", "npu.paged_attention"})


PAGES = "npu.kv"
"""The attribute of an argument of @main whose memory is the launch's pages: "k" or "v"."""


def describe(main: ir.OpView) -> dict | None:
    """The entry `kv` of the signature; None for a program without KV cache."""
    found: list[dict] = []
    shapes: dict[tuple, ir.Location] = {}

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in KV_OPS:
            repeat = op.parent if op.parent.name == "npu.repeat" else None
            count = ir.IntegerAttr(repeat.attributes["count"]).value if repeat else 1
            heads, head_dim, v_head_dim = (
                ir.IntegerAttr(op.attributes[name]).value for name in ("kv_heads", "head_dim", "v_head_dim")
            )
            layers = ir.IntegerAttr(op.attributes["layer"]).value + count
            _, dtype = view_type(op.operands[0])
            shape = {"kv_heads": heads, "head_dim": head_dim, "v_head_dim": v_head_dim, "dtype": dtype}
            found.append({"layers": layers, **shape})
            shapes.setdefault(tuple(shape.values()), op.location)
        return ir.WalkResult.ADVANCE

    main.operation.walk(visit)
    if len(shapes) > 1:
        raise CompileError(
            Problem(
                "the KV caches of the layers differ in heads, dimensions or dtype",
                place(list(shapes.values())[1]),
                "a program has one layout of KV pages; such a model cannot be compiled yet",
            )
        )
    if not found:
        return None
    pages = page_tensors(main)
    return {
        **found[0],
        "layers": max(kv["layers"] for kv in found),
        **({"tensors": pages} if pages else {}),
    }


def page_tensors(main: ir.OpView) -> list[str]:
    """The names of the arguments that hold K and V, where they are arguments."""
    if "arg_attrs" not in main.operation.attributes:
        return []
    described = map(ir.DictAttr, main.operation.attributes["arg_attrs"])
    kinds = {d[PAGES].value: d["npu.input"].value for d in described if PAGES in d}
    return [kinds["k"], kinds["v"]] if kinds else []


def layer_bases(ctx: KernelContext, b: TileBuilder, op: ir.OpView) -> tuple[Index, Index]:
    """The HBM addresses of the first key and the first value of the op's layer."""
    offset = b.arg("kv:layer_stride") * (ctx.layer + op.layer.value)
    return b.arg("kv:k_base") + offset, b.arg("kv:v_base") + offset


def scatter_heads(
    b: TileBuilder, src: TileRef, base: Index, slots: View, start: Index, rows: Index, heads: int
) -> None:
    """Writes src[rows][heads][d], tokens start…, to the slots that `slots` names.

    `base` is one of `layer_bases`.
    """
    _, head_bytes, element = src.strides
    width = head_bytes // element
    b.dma_scatter(
        base,
        src,
        index=b.address(slots, start),
        index_dtype=slots.dtype,
        count=rows,
        limit=b.arg("kv:slots"),
        group=b.arg("kv:page_size"),
        group_stride=b.arg("kv:page_stride"),
        index_stride=b.arg("kv:token_stride"),
        rows=heads,
        row_bytes=width * element,
        row_stride=b.arg("kv:head_stride"),
        src_index_stride=src.strides[0],
        src_row_stride=head_bytes,
    )


def emit_kv_write(ctx: KernelContext, op: ir.OpView) -> None:
    """k[T, Hkv·D], v[T, Hkv·Dv] → the pages; every core takes blocks of tokens."""
    heads, slots = op.kv_heads.value, movement.materialise(ctx, op, ctx.view(op.slots))
    parts = [(ctx.view(op.k), op.head_dim.value), (ctx.view(op.v), op.v_head_dim.value)]
    tokens = parts[0][0].shape[0]
    row_bytes = sum(heads * d * view.itemsize for view, d in parts)
    block = row_block(ctx.chip, row_bytes)
    with ctx.kernel(op, "kv_write", bytes=dim(tokens * row_bytes * 2)) as b:
        bases = layer_bases(ctx, b, op)
        with core_rows(b, ctx.chip, b.sym(tokens), block) as (start, rows):
            for (view, d), base in zip(parts, bases, strict=True):
                tile = b.alloc((block, heads, d), view.dtype)
                row, _, element = tile.strides
                b.load(tile.permuted(row, element), view, (start, 0), (rows, heads * d))
                scatter_heads(b, tile, base, slots, start, rows, heads)
