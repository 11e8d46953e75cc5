"""Ops that move elements without computing."""

from opennpu.dialects.npu.dialect import (
    DTYPES,
    INTEGERS,
    NpuOp,
    Tensor,
    TensorResult,
    dims,
    dtype,
    operand_slots,
    require,
    require_dim,
    require_dims,
    require_dtype,
    show,
)
from opennpu.dialects.symbols import dim as extent
from opennpu.dialects.symbols import num_elements
from torch_mlir.dialects.ext import Pure
from torch_mlir.ir import ArrayAttr, IntegerAttr

CONCAT_SLOTS = 16


def require_same_dtype(op, source) -> None:
    require_dtype("y", op.y, dtype(source))


class ReshapeOp(NpuOp, name="reshape", traits=[Pure]):
    """x → y of the same number of elements in the same row-major order."""

    x: Tensor
    y: TensorResult

    def check(self):
        require_same_dtype(self, self.x)
        before, after = num_elements(dims(self.x)), num_elements(dims(self.y))
        require(
            before == after,
            f"{show(dims(self.x))} has {before} elements, {show(dims(self.y))} has {after}",
        )


class TransposeOp(NpuOp, name="transpose", traits=[Pure]):
    """x → y: dimension i of y is dimension `perm`[i] of x."""

    x: Tensor
    perm: ArrayAttr
    y: TensorResult

    def check(self):
        require_same_dtype(self, self.x)
        shape, perm = dims(self.x), [p.value for p in self.perm]
        require(sorted(perm) == list(range(len(shape))), f"{perm} is not a permutation of rank {len(shape)}")
        require_dims("y", self.y, [shape[p] for p in perm])


class BroadcastOp(NpuOp, name="broadcast", traits=[Pure]):
    """x → y: dimensions of extent 1 and missing leading dimensions repeat."""

    x: Tensor
    y: TensorResult

    def check(self):
        require_same_dtype(self, self.x)
        source, target = dims(self.x), dims(self.y)
        fits = len(source) <= len(target) and all(
            s in (1, t) for s, t in zip(reversed(source), reversed(target), strict=False)
        )
        require(fits, f"{show(source)} does not broadcast to {show(target)}")


class SliceOp(NpuOp, name="slice", traits=[Pure]):
    """x → y: elements offset, offset + stride, … along `dim`, as many as y's extent."""

    x: Tensor
    dim: IntegerAttr
    offset: IntegerAttr
    stride: IntegerAttr
    y: TensorResult

    def check(self):
        require_same_dtype(self, self.x)
        source, target = dims(self.x), dims(self.y)
        dim, offset, stride = self.dim.value, self.offset.value, self.stride.value
        require_dim(dim, len(source))
        require(offset >= 0, f"offset {offset} is negative")
        require(stride >= 1, f"stride {stride} is less than 1")
        require_dims(
            "y", self.y, (*source[:dim], target[dim] if dim < len(target) else 0, *source[dim + 1 :])
        )
        rest = extent(source[dim] - offset - (target[dim] - 1) * stride - 1)
        require(
            target[dim] == 0 or not isinstance(rest, int) or rest >= 0,
            f"{target[dim]} elements from {offset} by {stride} leave the extent {source[dim]}",
        )


class ConcatOp(NpuOp, name="concat", traits=[Pure]):
    """xs… → y: the operands one after the other along `dim`.

    The operands are up to 16 optional ones, `xs0` … `xs15`, filled from the left, because
    IRDL wants one type for a variadic group; `.xs` lists those present. The builder
    `concat` nests ops where there are more.
    """

    __annotations__.update(operand_slots("xs", CONCAT_SLOTS))
    dim: IntegerAttr
    y: TensorResult

    @property
    def xs(self):
        return list(self.operands)

    def check(self):
        xs, target, dim = self.xs, dims(self.y), self.dim.value
        require(len(xs) >= 1, "has no operands")
        require_dim(dim, len(target))
        for i, x in enumerate(xs):
            require_dtype(f"operand {i}", x, dtype(self.y))
            require(
                len(dims(x)) == len(target), f"operand {i} has rank {len(dims(x))}, expected {len(target)}"
            )
            require_dims(f"operand {i}", x, (*target[:dim], dims(x)[dim], *target[dim + 1 :]))
        total = extent(sum(dims(x)[dim] for x in xs))
        require(total == target[dim], f"extents along dim {dim} add up to {total}, y has {target[dim]}")


class GatherOp(NpuOp, name="gather", traits=[Pure]):
    """table[R,…], index[I…] → y[I…,…]: rows of the table (embedding, index_select along dim 0)."""

    table: Tensor
    index: Tensor
    y: TensorResult

    def check(self):
        require_dtype("table", self.table, *DTYPES)
        require_dtype("index", self.index, *INTEGERS)
        require_same_dtype(self, self.table)
        require(len(dims(self.table)) >= 1, "table has no dimensions")
        require_dims("y", self.y, dims(self.index) + dims(self.table)[1:])


class TakeOp(NpuOp, name="take", traits=[Pure]):
    """x[…,N], index[…,M] → y[…,M]: y[…,j] = x[…, index[…,j]] (torch.gather along the last dimension)."""

    x: Tensor
    index: Tensor
    y: TensorResult

    def check(self):
        require_dtype("index", self.index, *INTEGERS)
        require_same_dtype(self, self.x)
        require(len(dims(self.x)) >= 1, "x has no dimensions")
        require_dims("index", self.index, (*dims(self.x)[:-1], *dims(self.index)[-1:]))
        require_dims("y", self.y, dims(self.index))


class PutRowsOp(NpuOp, name="put_rows", traits=[Pure]):
    """x[D…,R…], rows[M], values[M,R…] → y like x, its row rows[m] replaced by values[m].

    Rows are counted over the first `leading` dimensions D of x, one or two, row-major. Of equal rows it
    is not said which value stays. Where y lies in the memory of x, nothing but the rows is written.
    """

    x: Tensor
    rows: Tensor
    values: Tensor
    leading: IntegerAttr
    y: TensorResult

    def check(self):
        require_dtype("rows", self.rows, *INTEGERS)
        require_dtype("values", self.values, dtype(self.x))
        require_same_dtype(self, self.x)
        lead = self.leading.value
        require(lead in (1, 2), f"leading is {lead}, expected 1 or 2")
        require(len(dims(self.x)) >= lead, f"x has less than {lead} dimensions")
        require(len(dims(self.rows)) == 1, "rows is no list")
        require_dims("values", self.values, (*dims(self.rows), *dims(self.x)[lead:]))
        require_dims("y", self.y, dims(self.x))
