"""Rows in the order of their experts: where each goes, there, and back with its weight.

The order is a counting sort. Which row an expert's next choice takes is the number of its
choices so far: for a block of choices, one matrix product of a triangle of ones with their
one-hot rows. Counts are integers in f32, exact up to 2²⁴ choices.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opennpu.compiler.kernels import movement, views
from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.context import KernelContext
from opennpu.compiler.kernels.matmul import as_rows
from opennpu.compiler.kernels.scalars import Index, compare, minimum
from opennpu.compiler.kernels.tiling import BUFFERS, core_rows, row_block, tiles, upper_bound
from opennpu.compiler.kernels.values import View
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, dim, num_elements
from opennpu.runtime.chip import Chip
from torch_mlir import ir

# ---- the order


def emit_sort_experts(ctx: KernelContext, op: ir.OpView) -> None:
    """ids[T,k] → rows[k,T], matrices[E], offsets[E + 1]; one core."""
    ids = movement.materialise(ctx, op, ctx.view(op.ids))
    rows, matrices, offsets = (ctx.output(result) for result in op.results)
    sort = CountingSort(ctx.chip, ids, op.experts.value)
    if sort.tokens < 1:
        what = f"'{op.operation.name}': {ids.shape[1]} choices of a token do not fit the matrix unit"
        raise CompileError(Problem(what, describe(op.location), f"take at most {ctx.chip.mx_k}"))
    flops = dim(2 * num_elements(ids.shape) * op.experts.value * ctx.chip.mx_k)
    with (
        ctx.kernel(op, "sort_experts", flops, dim(ids.bytes + rows.bytes)) as b,
        b.if_(compare(b.core(), "eq", 0)),
    ):
        counts = sort.counts(b)
        starts = sort.prefix_sums(b, counts)
        sort.group(b, counts, starts, matrices, offsets)
        sort.place(b, starts, views.transpose(rows, (1, 0)))


@dataclass(frozen=True)
class CountingSort:
    """Of the choices ids[T,k] among `experts`; a block is as many whole tokens as have `mx_k` choices."""

    chip: Chip
    ids: View
    experts: int

    @property
    def k(self) -> int:
        return self.ids.shape[1]

    @property
    def tokens(self) -> int:
        """Of a block."""
        return self.chip.mx_k // self.k

    def counts(self, b: TileBuilder) -> TileRef:
        """[E]: how many choices every expert has."""
        counts = b.alloc((self.experts,), "f32")
        b.fill(counts, 0.0, (self.experts,))
        with self._blocks(b) as (_, choices, ids), self._expert_tiles(b) as (first, width):
            self._count(b, counts.at(first), self._one_hot(b, ids, choices, first, width), choices, width)
        return counts

    def prefix_sums(self, b: TileBuilder, x: TileRef) -> TileRef:
        """[E + 1]: the sum of the elements of x[E] before each."""
        sums = b.alloc((self.experts + 1,), "f32")
        with b.loop(0, self.experts + 1) as expert:
            b.reduce("sum", sums.at(expert), x, (expert,))
        return sums

    def group(self, b: TileBuilder, counts: TileRef, starts: TileRef, matrices: View, offsets: View) -> None:
        """Stores the experts that have rows, and where these begin; behind them groups without rows.

        What a group is told stands in three columns for its expert, and a product with the groups'
        one-hot rows picks it: the expert's number, where it begins, 1.
        """
        side, experts = self.chip.mx_k, self.experts
        zero, one = b.alloc((1,), "f32"), b.alloc((1,), "f32")
        b.fill(zero, 0.0, (1,))
        b.fill(one, 1.0, (1,))
        chosen = b.alloc((experts,), "f32")
        b.binary("gt", chosen, counts, zero.broadcast(-1), (experts,))
        group = self.prefix_sums(b, chosen)  # of an expert; -1 where it has none
        for op, operand in (("mul", chosen), ("add", chosen), ("sub", one.broadcast(-1))):
            b.binary(op, group, group, operand, (experts,))
        columns = b.alloc((3, experts), "f32")
        b.iota(columns, (experts,), 0, (1,))
        b.copy(columns.at(1, 0), starts, (experts,))
        b.fill(columns.at(2, 0), 1.0, (experts,))
        with b.loop(0, experts + 1, side) as first:
            count = minimum(side, experts + 1 - first)
            number = b.alloc((side, 1), "f32")
            b.iota(number.permuted(4), (count,), first, (1,))
            told = b.alloc((side, 3), "f32", "acc")
            with self._expert_tiles(b) as (expert, width):
                hot = b.alloc((side, self.chip.mx_n), "f32")
                b.binary("eq", hot, group.at(expert), number.broadcast(-1), (count, width))
                b.mx_load(columns.at(0, expert), "nk", width, 3, columns.strides[1])
                b.mx_mul(told, hot, count, accumulate=expert)
            begin, rest = told.at(0, 1), told.at(0, 2)
            b.binary("sub", rest, one.broadcast(-1), rest, (count, 1))
            b.binary("mul", rest, rest, starts.at(experts).broadcast(-1), (count, 1))
            b.binary("add", begin, begin, rest, (count, 1))
            self._store(b, matrices, first, told, minimum(side, experts - first))
            self._store(b, offsets, first, begin, count)

    def _store(self, b: TileBuilder, dst: View, first: Index, column: TileRef, count: Index) -> None:
        """dst[first…] = the column, as i32."""
        rounded = b.alloc((self.chip.mx_k,), "i32")
        b.copy(rounded.permuted(4), column.permuted(column.strides[1]), (count,))
        b.store(dst, (first,), rounded, (count,))

    def place(self, b: TileBuilder, next_row: TileRef, rows: View) -> None:
        """Stores the row of every choice in rows[T,k]; `next_row` runs along."""
        side = self.chip.mx_k
        before = b.alloc((side, side), "f32")  # before[i][j]: j < i
        row, column = b.alloc((side, 1), "f32"), b.alloc((side,), "f32")
        for numbers in (row, column):
            b.iota(numbers.permuted(4), (side,), 0, (1,))
        b.binary("lt", before, column, row.broadcast(-1), (side, side))
        with self._blocks(b) as (token, choices, ids):
            place, part = (b.alloc((side, 1), "f32") for _ in range(2))
            b.fill(place, 0.0, (choices, 1))
            with self._expert_tiles(b) as (first, width):
                own = next_row.at(first)
                hot = self._one_hot(b, ids, choices, first, width)
                rank = b.alloc((side, self.chip.mx_n), "f32", "acc")
                b.mx_load(hot, "kn", choices, width, hot.strides[1])
                b.mx_mul(rank, before, choices, accumulate=0)
                b.binary("add", rank, rank, own, (choices, width))
                b.binary("mul", rank, rank, hot, (choices, width))
                b.reduce("sum", part, rank, (choices, width))
                b.binary("add", place, place, part, (choices, 1))
                self._count(b, own, hot, choices, width)
            rounded = b.alloc((self.tokens, self.k), "i32")
            b.copy(rounded.permuted(4), place.permuted(4), (choices,))
            b.store(rows, (token, 0), rounded, (minimum(self.tokens, b.sym(rows.shape[0]) - token), self.k))

    def _one_hot(self, b: TileBuilder, ids: TileRef, choices: Index, first: Index, width: Index) -> TileRef:
        """[choice][expert - first]: 1 where the choice is the expert."""
        numbers = b.alloc((self.chip.mx_n,), "f32")
        b.iota(numbers, (width,), first, (1,))
        hot = b.alloc((self.chip.mx_k, self.chip.mx_n), "f32")
        b.binary("eq", hot, numbers, ids.permuted(4, 0), (choices, width))
        return hot

    def _count(self, b: TileBuilder, total: TileRef, hot: TileRef, choices: Index, width: Index) -> None:
        """total[expert] += its choices in the block."""
        more = b.alloc((self.chip.mx_n,), "f32")
        b.reduce("sum", more.permuted(4, 0), hot.permuted(4, hot.strides[1]), (width, choices))
        b.binary("add", total, total, more, (width,))

    @contextmanager
    def _blocks(self, b: TileBuilder) -> Iterator[tuple[Index, Index, TileRef]]:
        """A loop over blocks: the first token, the number of choices, their experts [choices] (f32)."""
        flat, count = views.reshape(self.ids, (num_elements(self.ids.shape),)), b.sym(self.ids.shape[0])
        with b.loop(0, count, self.tokens) as token:
            choices = minimum(self.tokens, count - token) * self.k
            loaded, ids = (b.alloc((self.chip.mx_k,), dtype) for dtype in ("i32", "f32"))
            b.load(loaded, flat, (token * self.k,), (choices,))
            b.copy(ids, loaded, (choices,))
            yield token, choices, ids

    def _expert_tiles(self, b: TileBuilder):
        """A loop over tiles of experts: (first, how many)."""
        return tiles(b, self.experts, self.chip.mx_n, self.experts)


# ---- rows of activations


def emit_scatter_rows(ctx: KernelContext, op: ir.OpView) -> None:
    """x[T,H] → y[k·T,H]; every core takes blocks of tokens and loads each row once."""
    x, y = ctx.view(op.x), ctx.output(op.y)
    rows = movement.materialise(ctx, op, ctx.view(op.rows))
    block = Block.of(ctx, y, x.itemsize)
    with (
        ctx.kernel(op, "scatter_rows", bytes=dim(x.bytes + y.bytes)) as b,
        core_rows(b, ctx.chip, b.sym(x.shape[0]), block.rows) as (token, count),
        block.parts(b) as (at, width),
    ):
        tile = b.alloc((block.rows, block.width), x.dtype)
        b.load(tile, x, (token, at), (count, width))
        with b.loop(0, b.sym(rows.shape[0])) as choice:
            b.dma_scatter(
                b.address(y, 0, at),
                tile,
                index=b.address(rows, choice, token),
                index_dtype=rows.dtype,
                count=count,
                limit=b.sym(y.shape[0]),
                group_stride=b.sym(y.strides[0]) * y.itemsize,
                row_bytes=width * y.itemsize,
                src_index_stride=tile.strides[1],
            )


def emit_combine_rows(ctx: KernelContext, op: ir.OpView) -> None:
    """x[k·T,H] → y[T,H], the sum of a token's rows by weight; every core takes blocks of tokens."""
    x, weights, y = as_rows(ctx, op, ctx.view(op.x)), ctx.view(op.weights), ctx.output(op.y)
    rows = movement.materialise(ctx, op, ctx.view(op.rows))
    k = rows.shape[0]
    block = Block.of(ctx, x, x.itemsize + y.itemsize + 8, 4 * k)
    flops, nbytes = dim(2 * num_elements(x.shape)), dim(x.bytes + y.bytes)
    with (
        ctx.kernel(op, "combine_rows", flops, nbytes) as b,
        core_rows(b, ctx.chip, b.sym(y.shape[0]), block.rows) as (token, count),
    ):
        factors = b.alloc((block.rows, k), weights.dtype)
        b.load(factors, weights, (token, 0), (count, k))
        with block.parts(b) as (at, width):
            extents = (count, width)
            total, term = (b.alloc((block.rows, block.width), "f32") for _ in range(2))
            b.fill(total, 0.0, extents)
            with b.loop(0, k) as choice:
                tile = b.alloc((block.rows, block.width), x.dtype)
                b.dma_gather(
                    tile,
                    b.address(x, 0, at),
                    index=b.address(rows, choice, token),
                    index_dtype=rows.dtype,
                    count=count,
                    limit=b.sym(x.shape[0]),
                    group_stride=b.sym(x.strides[0]) * x.itemsize,
                    row_bytes=width * x.itemsize,
                    dst_index_stride=tile.strides[1],
                )
                b.binary("mul", term, tile, factors.at(choice).broadcast(-1), extents)
                b.binary("add", total, total, term, extents)
            out = b.alloc((block.rows, block.width), y.dtype)
            b.copy(out, total, extents)
            b.store(y, (token, at), out, extents)


@dataclass(frozen=True)
class Block:
    """How many rows of how many elements a core has in scratchpad, of rows of `extent` ≤ `most`."""

    rows: int
    width: int
    extent: Dim
    most: int

    @staticmethod
    def of(ctx: KernelContext, x: View, element_bytes: int, row_bytes: int = 0) -> "Block":
        """For tiles of rows of x that need these bytes an element and a row together."""
        chip, extent = ctx.chip, x.shape[1]
        bound = upper_bound(extent, ctx.ranges)
        longest = (chip.spm_bytes // BUFFERS - row_bytes) // element_bytes // chip.strip * chip.strip
        width = longest if bound is None else max(1, min(longest, bound))
        rows = row_block(chip, width * element_bytes + row_bytes)
        return Block(rows, width, extent, width + 1 if bound is None else bound)

    def parts(self, b: TileBuilder):
        """A loop over parts of the rows: (first element, how many)."""
        return tiles(b, b.sym(self.extent), self.width, self.most)


EMITTERS = {
    "npu.sort_experts": emit_sort_experts,
    "npu.scatter_rows": emit_scatter_rows,
    "npu.combine_rows": emit_combine_rows,
}
