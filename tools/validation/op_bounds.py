"""How far each op may be from float64, and why: a table.

Errors count units in the last place (ulp) of the result's dtype. They are taken of the exact value itself
where each element is computed by itself (`row=False`), else of the greatest value of its row, or of the root
mean square of all values where that is more, because the terms of a sum may cancel. The bound of a bfloat16
result is half an ulp, for its one rounding, and the float32 bound, of which an ulp of bfloat16 holds 65536.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from opennpu.compiler.rewriting import attr
from opennpu.tools.validation.one_op import Case
from torch_mlir import ir

F32_PER_BF16 = 65536


@dataclass(frozen=True)
class Bound:
    """`float32(case)`: ulps of float32; `roundings`: values within that are rounded to bfloat16 on the way,
    each worth a whole ulp of the row; `absolute` is taken off each error first."""

    float32: Callable[[Case], float]
    reason: str
    row: bool = False
    roundings: int = 0
    absolute: float = 0.0

    def ulps(self, case: Case) -> float:
        if case.dtype not in ("f32", "bf16"):
            return 0.0
        own = self.float32(case)
        if case.dtype == "f32" or own == 0:
            return own
        return 0.5 + 1e-3 + self.roundings + own / F32_PER_BF16


def _ulps(value: float) -> Callable[[Case], float]:
    return lambda case: value


def _sum(extra: float) -> Callable[[Case], float]:
    return lambda case: 2 * math.sqrt(case.terms) + extra


EXACT = Bound(_ulps(0), "moves elements or compares them: equal bit for bit")
ROUNDED = Bound(_ulps(0.51), "one operation of IEEE 754, correctly rounded")
FUNCTION = Bound(_ulps(4.5), "isa.toml: the native engine is within 4 ulp of the real value")
NEAR_ZERO = Bound(_ulps(4.5), "isa.toml: within 4 ulp, or 2^-22 near a zero", absolute=2**-22)
SUM = Bound(
    _sum(2),
    "K roundings of partial sums, of either sign: √K of them add up; of the row",
    row=True,
)
NORM = Bound(_sum(6), "a sum, a root and two products: √K + 4 roundings, of the row", row=True)
SOFTMAX = Bound(
    lambda case: 2 * math.sqrt(case.terms) + 24,
    "exp of a difference that is rounded: |x| · ulp/2 relative, |x| to 16; then a sum and a quotient",
    row=True,
)
GATED = Bound(_sum(12), "a sum, an activation within 4 ulp, a product with another sum", row=True)
ROTATED = Bound(_ulps(3), "two products and their difference, which may cancel", row=True)
WRITTEN = Bound(_ulps(3), "keys are rotated as queries are, values are copied", row=True)
ATTENTION = Bound(
    lambda case: 4 * math.sqrt(case.terms) + 40,
    "two products with a softmax between them; in bfloat16 the weights of the second product are rounded too",
    row=True,
    roundings=1,
)
FUSED = Bound(
    lambda case: 2 * math.sqrt(case.terms) + 16,
    "a few operations; in bfloat16 each of them rounds its result, as PyTorch does",
    row=True,
    roundings=4,
)

EXACT_OPS = """
reshape transpose broadcast slice concat gather take constant extent iota select
scatter_rows put_rows sort_experts kv_write
unary_copy unary_neg unary_abs unary_sign unary_relu unary_floor unary_ceil unary_round unary_trunc
unary_not binary_max binary_min binary_and binary_or binary_xor
binary_eq binary_ne binary_lt binary_le binary_gt binary_ge
reduce_max reduce_min reduce_argmax"""
ROUNDED_OPS = (
    "cast unary_square unary_sqrt unary_recip binary_add binary_sub binary_mul binary_div binary_mod"
)
FUNCTION_OPS = "unary_exp unary_log unary_rsqrt unary_tanh unary_erf unary_sigmoid unary_silu binary_pow"
NEAR_ZERO_OPS = "unary_sin unary_cos unary_gelu unary_gelu_tanh"


def _named(names: str, bound: Bound) -> dict[str, Bound]:
    """`unary_exp` stands for the label `unary exp`."""
    kinds = ("unary_", "binary_", "reduce_")
    labels = (n.replace("_", " ", 1) if n.startswith(kinds) else n for n in names.split())
    return dict.fromkeys(labels, bound)


BOUNDS: dict[str, Bound] = {
    **_named(EXACT_OPS, EXACT),
    **_named(ROUNDED_OPS, ROUNDED),
    **_named(FUNCTION_OPS, FUNCTION),
    **_named(NEAR_ZERO_OPS, NEAR_ZERO),
    **_named("reduce_sum reduce_mean cumsum matmul grouped_matmul combine_rows", SUM),
    **_named("silu_and_mul gelu_and_mul", GATED),
    "matmul gated": GATED,
    "grouped_matmul gated": GATED,
    **_named("rms_norm add_rms_norm layer_norm", NORM),
    **_named("softmax topk_softmax", SOFTMAX),
    "rope": ROTATED,
    "rope_kv_write": WRITTEN,
    **_named("paged_attention varlen_attention dense_attention", ATTENTION),
    "fused": FUSED,
}
"""Label → bound. A label is the op's name, and what of its attributes changes the arithmetic."""


def label_of(op: ir.Operation) -> str:
    """`unary exp`, `matmul gated`."""
    name = op.name.removeprefix("npu.")
    if name in ("unary", "binary", "reduce"):
        return f"{name} {attr(op, 'op')}"
    if name in ("matmul", "grouped_matmul"):
        plain = all(step in ("bias", "residual") for step in attr(op, "epilogue"))
        return name if plain else f"{name} gated"
    return name
