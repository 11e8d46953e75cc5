"""Matrix products and the grammar of their epilogues."""

from collections.abc import Sequence

from opennpu.dialects.npu.dialect import (
    FLOATS,
    INTEGER_UNARY,
    UNARY,
    Invalid,
    NpuOp,
    Tensor,
    TensorResult,
    dims,
    dtype,
    operand_slots,
    require,
    require_dims,
    require_dtype,
)
from opennpu.dialects.symbols import Dim, exact_div
from torch_mlir import ir
from torch_mlir.dialects.ext import Pure
from torch_mlir.ir import ArrayAttr, IntegerAttr

EXTRA_SLOTS = 4

ACTIVATIONS = ("relu", *(name for name in UNARY if name not in (*INTEGER_UNARY, "not")))
GATES = {"gate_silu": "silu", "gate_gelu": "gelu", "gate_gelu_tanh": "gelu_tanh"}
"""Gating epilogues and the activation of the gate."""

OPERANDS = ("bias", "residual")
"""Epilogue steps that consume the next extra operand."""


def product_dims(x: Sequence[Dim], w: Sequence[Dim], transpose_w: bool) -> tuple[Dim, ...]:
    """The extents of x·w; Invalid where they do not fit."""
    require(len(x) >= 2, f"x has rank {len(x)}, expected at least 2")
    require(len(w) == 2 or len(w) == len(x), f"w has rank {len(w)}, expected 2 or x's rank {len(x)}")
    n, k = w[-2:] if transpose_w else (w[-1], w[-2])
    require(x[-1] == k, f"contraction of {x[-1]} in x with {k} in w")
    require(len(w) == 2 or x[:-2] == w[:-2], "x and w have different batch dimensions")
    return (*x[:-1], n)


class MatmulOp(NpuOp, name="matmul", traits=[Pure]):
    """x[…,M,K], w → y[…,M,N], accumulated in f32, after the epilogue's steps.

    w is [K,N], with `transpose_w` [N,K]; it has two dimensions or x's batch dimensions
    before these. x and w have one float dtype; y may be f32 or bf16.

    `epilogue` is an array of strings, applied in order to the f32 accumulator: `bias` adds
    the next extra operand, [N]; `residual` adds the next, of y's extents; an activation's
    name; a gate (`gate_silu`, `gate_gelu`, `gate_gelu_tanh`): w's rows are gate, then up;
    y = act(gate) · up has N/2 columns; `transpose_w` with a w of two dimensions, at most
    once, nothing but `bias` before it. The extra operands are up to 4 optional ones,
    `extra0` … `extra3`, filled from the left; `.extra` lists those present.
    """

    x: Tensor
    w: Tensor
    __annotations__.update(operand_slots("extra", EXTRA_SLOTS))
    transpose_w: IntegerAttr
    epilogue: ArrayAttr
    y: TensorResult

    @property
    def extra(self):
        return list(self.operands)[2:]

    @property
    def steps(self) -> list[str]:
        return [ir.StringAttr(step).value for step in self.epilogue]

    def check(self):
        require_dtype("x", self.x, *FLOATS)
        require_dtype("w", self.w, dtype(self.x))
        require_dtype("y", self.y, *FLOATS)
        shape = product_dims(dims(self.x), dims(self.w), bool(self.transpose_w.value))
        require_dims("y", self.y, self._check_epilogue(shape))

    def _check_epilogue(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The extents of y from those of the product."""
        extra = iter(self.extra)
        for i, step in enumerate(self.steps):
            if step in OPERANDS:
                operand = next(extra, None)
                require(operand is not None, f"epilogue step '{step}' has no extra operand")
                require_dtype(step, operand, *FLOATS)
                require_dims(step, operand, shape[-1:] if step == "bias" else shape)
            elif step in GATES:
                self._check_gate(step, self.steps[:i])
                try:
                    shape = (*shape[:-1], exact_div(shape[-1], 2))
                except ValueError:
                    raise Invalid(f"{step} needs an even number of columns, not {shape[-1]}") from None
            else:
                require(step in ACTIVATIONS, f"unknown epilogue step '{step}'")
        require(next(extra, None) is None, "has more extra operands than the epilogue uses")
        return shape

    def _check_gate(self, step: str, before: list[str]) -> None:
        require(all(s == "bias" for s in before), f"only bias may come before {step}")
        require(bool(self.transpose_w.value), f"{step} needs transpose_w")
        require(len(dims(self.w)) == 2, f"{step} needs a w of two dimensions")
