"""Matrix products: accumulated in float32, through bias, activation and residual, rounded once."""

from opennpu.compiler.frontend.ops.activations import ACTIVATIONS, GATES, apply
from opennpu.compiler.frontend.ops.library import (
    FLOATS,
    check_dtype,
    check_even,
    check_one_of,
    check_rank,
    check_shape,
    operator,
)
from torch import Tensor


def _matmul(x, w, bias=None, residual=None, *, activation="none", transpose_w=True):
    check_dtype("matmul", "x", x, FLOATS)
    check_rank("matmul", "x", x, 2)
    check_dtype("matmul", "w", w, [x.dtype])
    check_rank("matmul", "w", w, 2, 2)
    check_one_of("matmul", "activation", activation, [*ACTIVATIONS, *GATES])
    columns, k = (w.shape[0], x.shape[-1]) if transpose_w else (w.shape[1], x.shape[-1])
    check_shape("matmul", "w", w, (columns, k) if transpose_w else (k, columns))
    if bias is not None:
        check_dtype("matmul", "bias", bias, FLOATS)
        check_shape("matmul", "bias", bias, (columns,))
    if activation in GATES:
        check_even("matmul", "x · w", columns)
        columns = columns // 2
    shape = (*x.shape[:-1], columns)
    if residual is not None:
        check_dtype("matmul", "residual", residual, FLOATS)
        check_shape("matmul", "residual", residual, shape)
    return x.new_empty(shape)


@operator(
    "matmul(Tensor x, Tensor w, Tensor? bias=None, Tensor? residual=None, *,"
    ' str activation="none", bool transpose_w=True) -> Tensor',
    _matmul,
)
def matmul(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str = "none",
    transpose_w: bool = True,
) -> Tensor:
    """activation(x · wᵀ + bias) + residual; without transpose_w x · w.

    x[..., M, K] float32 or bfloat16; w[N, K] (without transpose_w [K, N]) of x's dtype;
    bias[N], residual[..., M, N] float32 or bfloat16. → [..., M, N] of x's dtype.
    activation: none, relu, gelu, gelu_tanh, silu, sigmoid, tanh; or gate_silu, gate_gelu,
    gate_gelu_tanh, where the columns of the product are gate, then up, and result and
    residual have the N/2 columns act(gate) · up.
    TypeError for another dtype, ValueError for another shape or name.
    """
    y = x.float() @ (w.float().mT if transpose_w else w.float())
    y = apply(activation, y if bias is None else y + bias)
    return (y if residual is None else y + residual).to(x.dtype)
