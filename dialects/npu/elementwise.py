"""Constants and ops that act element by element or along a row."""

from opennpu.dialects.npu.dialect import (
    BINARY,
    COMPARISONS,
    FLOATS,
    INTEGER_UNARY,
    INTEGERS,
    LOGICAL,
    REDUCE,
    UNARY,
    NpuOp,
    Tensor,
    TensorResult,
    broadcast,
    dims,
    dtype,
    require,
    require_dim,
    require_dims,
    require_dtype,
    require_one_of,
)
from opennpu.dialects.symbols import Sym
from torch_mlir.dialects.ext import Pure
from torch_mlir.ir import FloatAttr, IntegerAttr, StringAttr


class ConstantOp(NpuOp, name="constant", traits=[Pure]):
    """→ y: every element is `value`, a FloatAttr for float tensors, else an IntegerAttr."""

    value: FloatAttr | IntegerAttr
    y: TensorResult

    def check(self):
        is_float = dtype(self.y) in FLOATS
        require(
            isinstance(self.value, FloatAttr) == is_float, f"value {self.value} does not fit {dtype(self.y)}"
        )


class IotaOp(NpuOp, name="iota", traits=[Pure]):
    """→ y: start + step · (index along `dim`)."""

    dim: IntegerAttr
    start: IntegerAttr
    step: IntegerAttr
    y: TensorResult

    def check(self):
        require_dim(self.dim.value, len(dims(self.y)))
        require_dtype("y", self.y, *FLOATS, *INTEGERS)


class ExtentOp(NpuOp, name="extent", traits=[Pure]):
    """→ y without dimensions: `value`, a polynomial in symbols, as a number."""

    value: StringAttr
    y: TensorResult

    def check(self):
        Sym.of(self.value.value)
        require_dims("y", self.y, ())
        require_dtype("y", self.y, *FLOATS, *INTEGERS)


class UnaryOp(NpuOp, name="unary", traits=[Pure]):
    """x → y of the same shape and dtype: `op`, a name of the instruction set's enum unary.

    On integers: copy, neg, abs, sign, square, relu. `not` takes and gives i1.
    """

    x: Tensor
    op: StringAttr
    y: TensorResult

    def check(self):
        name = self.op.value
        require_one_of("unary op", name, UNARY)
        if name == "not":
            require_dtype("x", self.x, "i1")
        elif name in INTEGER_UNARY:
            require_dtype("x", self.x, *FLOATS, *INTEGERS)
        else:
            require_dtype("x", self.x, *FLOATS)
        require_dtype("y", self.y, dtype(self.x))
        require_dims("y", self.y, dims(self.x))


class BinaryOp(NpuOp, name="binary", traits=[Pure]):
    """a, b → y: `op`, a name of the instruction set's enum binary; shapes broadcast as in numpy.

    a and b have one dtype, which y has too; comparisons give i1. and, or, xor act on
    integers and i1, arithmetic on all dtypes but i1.
    """

    a: Tensor
    b: Tensor
    op: StringAttr
    y: TensorResult

    def check(self):
        name = self.op.value
        require_one_of("binary op", name, BINARY)
        require_dtype("b", self.b, dtype(self.a))
        if name in LOGICAL:
            require_dtype("a", self.a, *INTEGERS, "i1")
        elif name not in COMPARISONS:
            require_dtype("a", self.a, *FLOATS, *INTEGERS)
        require_dtype("y", self.y, "i1" if name in COMPARISONS else dtype(self.a))
        require_dims("y", self.y, broadcast(dims(self.a), dims(self.b)))


class SelectOp(NpuOp, name="select", traits=[Pure]):
    """cond (i1), a, b → y: a where cond, else b; shapes broadcast as in numpy."""

    cond: Tensor
    a: Tensor
    b: Tensor
    y: TensorResult

    def check(self):
        require_dtype("cond", self.cond, "i1")
        require_dtype("b", self.b, dtype(self.a))
        require_dtype("y", self.y, dtype(self.a))
        require_dims("y", self.y, broadcast(dims(self.cond), dims(self.a), dims(self.b)))


class CastOp(NpuOp, name="cast", traits=[Pure]):
    """x → y of another dtype: to bf16 rounds to nearest even, float to integer truncates, to i1 is ≠ 0."""

    x: Tensor
    y: TensorResult

    def check(self):
        require_dims("y", self.y, dims(self.x))


class ReduceOp(NpuOp, name="reduce", traits=[Pure]):
    """x → y: `op` (sum, max, min, argmax, mean) over `dim`, kept with extent 1 when `keepdim`.

    y has x's dtype; argmax gives i64, the first greatest. Sums are taken in f32.
    """

    x: Tensor
    op: StringAttr
    dim: IntegerAttr
    keepdim: IntegerAttr
    y: TensorResult

    def check(self):
        name, dim, shape = self.op.value, self.dim.value, dims(self.x)
        require_one_of("reduction", name, REDUCE)
        require_dim(dim, len(shape))
        require_dtype("x", self.x, *FLOATS, *(() if name == "mean" else INTEGERS))
        require_dtype("y", self.y, "i64" if name == "argmax" else dtype(self.x))
        kept = (1,) if self.keepdim.value else ()
        require_dims("y", self.y, shape[:dim] + kept + shape[dim + 1 :])


def check_row_op(op, *weights: str) -> None:
    """y is like x, a float tensor; each of the named weights is a float vector of x's last extent."""
    require_dtype("x", op.x, *FLOATS)
    require(len(dims(op.x)) >= 1, "x has no dimensions")
    require_dtype("y", op.y, dtype(op.x))
    require_dims("y", op.y, dims(op.x))
    for name in weights:
        require_dtype(name, getattr(op, name), *FLOATS)
        require_dims(name, getattr(op, name), dims(op.x)[-1:])


class CumsumOp(NpuOp, name="cumsum", traits=[Pure]):
    """x → y of the same shape and dtype: the sums of the elements up to each one of the last dimension.

    Floats in f32, rounded once.
    """

    x: Tensor
    y: TensorResult

    def check(self):
        require(len(dims(self.x)) >= 1, "x has no dimensions")
        require_dtype("x", self.x, *FLOATS, *INTEGERS)
        require_dtype("y", self.y, dtype(self.x))
        require_dims("y", self.y, dims(self.x))


class SoftmaxOp(NpuOp, name="softmax", traits=[Pure]):
    """x → y: softmax over the last dimension, f32 inside."""

    x: Tensor
    y: TensorResult

    def check(self):
        check_row_op(self)


class RmsNormOp(NpuOp, name="rms_norm", traits=[Pure]):
    """x, w → y: x / sqrt(mean(x²) + eps) · w over the last dimension, f32 inside."""

    x: Tensor
    w: Tensor
    eps: FloatAttr
    y: TensorResult

    def check(self):
        check_row_op(self, "w")


class LayerNormOp(NpuOp, name="layer_norm", traits=[Pure]):
    """x, w, b → y: (x - mean) / sqrt(var + eps) · w + b over the last dimension, f32 inside."""

    x: Tensor
    w: Tensor
    b: Tensor
    eps: FloatAttr
    y: TensorResult

    def check(self):
        check_row_op(self, "w", "b")


class AddRmsNormOp(NpuOp, name="add_rms_norm", traits=[Pure]):
    """x, residual, w → y, sum: sum = x + residual, y = rms_norm(sum, w). Made by fusion."""

    x: Tensor
    residual: Tensor
    w: Tensor
    eps: FloatAttr
    y: TensorResult
    sum: TensorResult

    def check(self):
        check_row_op(self, "w")
        for name in ("residual", "sum"):
            require_dtype(name, getattr(self, name), dtype(self.x))
            require_dims(name, getattr(self, name), dims(self.x))


def check_gated(op) -> None:
    """y is x with the last extent halved."""
    require_dtype("x", op.x, *FLOATS)
    require_dtype("y", op.y, dtype(op.x))
    rows = dims(op.x)[:-1]
    require_dims("x", op.x, [*rows, 2 * dims(op.y)[-1]])
    require_dims("y", op.y, [*rows, dims(op.y)[-1]])


class SiluAndMulOp(NpuOp, name="silu_and_mul", traits=[Pure]):
    """x[…,2F] → y[…,F]: silu(first half) · second half. Made by fusion."""

    x: Tensor
    y: TensorResult

    def check(self):
        check_gated(self)


class GeluAndMulOp(NpuOp, name="gelu_and_mul", traits=[Pure]):
    """x[…,2F] → y[…,F]: gelu(first half) · second half; `approximate` is none or tanh. Made by fusion."""

    x: Tensor
    approximate: StringAttr
    y: TensorResult

    def check(self):
        check_gated(self)
        require_one_of("approximate", self.approximate.value, ("none", "tanh"))
