"""How far each op may be from float64, and why: a table.

Errors count units in the last place (ulp) of the result's dtype. They are taken of the exact value itself
where each element is computed by itself (`row=False`), else of the greatest value of its row, or of the root
mean square of all values where that is more, because the terms of a sum may cancel. A bound is a sum of
parts, each with its reason; those of a bfloat16 result count 1/65536, as its ulp holds as many of float32.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from opennpu.compiler.rewriting import attr
from torch_mlir import ir

F32_PER_BF16 = 65536


@dataclass(frozen=True)
class Part:
    """`ulps` of float32, times a count of the op (op_counts.py) or its root."""

    ulps: float
    reason: str
    count: str = ""
    root: bool = False

    def value(self, counts: Mapping[str, int]) -> float:
        factor = counts[self.count] if self.count else 1
        return self.ulps * (math.sqrt(factor) if self.root else factor)

    def __str__(self) -> str:
        times = f"·{'√' if self.root else ''}{self.count}" if self.count else ""
        return f"{self.ulps:g}{times} {self.reason}"


@dataclass(frozen=True)
class Bound:
    """`roundings`: values that are rounded to bfloat16 within an op with such a result, a number or a
    count, each worth a whole ulp of the row; `absolute` is taken off each error first. Without parts all is
    equal."""

    parts: tuple[Part, ...]
    note: str = ""
    row: bool = False
    roundings: int | str = 0
    absolute: float = 0.0

    def ulps(self, dtype: str, counts: Mapping[str, int]) -> float:
        """Of a result's dtype."""
        if not self._rounds(dtype):
            return 0.0
        own = sum(part.value(counts) for part in self.parts)
        return own if dtype == "f32" else 0.5 + self._within(counts) + own / F32_PER_BF16

    def reason(self, dtype: str) -> str:
        """What each part of the bound is for."""
        if not self._rounds(dtype):
            return self.note or "integers: equal"
        texts = [str(part) for part in self.parts]
        if dtype == "bf16":
            texts = ["0.5 the rounding of the result", *([self._rounded()] if self.roundings else [])]
            texts.append(
                "of an ulp of float32, of which one of bfloat16 holds 65536: "
                + "; ".join(map(str, self.parts))
            )
        return "; ".join([*texts, *([self.note] if self.note else [])])

    def _rounds(self, dtype: str) -> bool:
        return bool(self.parts) and dtype in ("f32", "bf16")

    def _within(self, counts: Mapping[str, int]) -> int:
        return counts[self.roundings] if isinstance(self.roundings, str) else self.roundings

    def _rounded(self) -> str:
        return f"{self.roundings}·1 a whole ulp of the row for each value rounded to bfloat16 within the op"


def _partial(count: str = "K", what: str = "a sum") -> Part:
    """K roundings of half an ulp, of either sign, have a standard deviation of 0.29·√K; with those of the
    products 0.41·√K. Two is five deviations."""
    return Part(
        2, f"the roundings of {count} products and partial sums of {what}, of either sign", count, True
    )


EXPONENTIALS = Part(9, "exp within 4, and as much again of all those in the sum; a quotient of 1")
SHORT = Part(2, "sums of few terms, whose roundings may all fall one way")
NATIVE = "isa.toml: the native engine's functions are within 4 ulp, and the result is rounded"

EXACT = Bound((), "moves elements or compares them: equal bit for bit")
ROUNDED = Bound((Part(0.51, "one operation of IEEE 754, correctly rounded"),))
FUNCTION = Bound((Part(4.5, NATIVE),))
NEAR_ZERO = Bound((Part(4.5, NATIVE),), "near a zero of the function within 2^-22", absolute=2**-22)
SUM = Bound((_partial(), SHORT), row=True)
NORM = Bound(
    (_partial(what="the squares"), Part(6, "a root within 4, two products and the mean, half each")), row=True
)
SOFTMAX = Bound(
    (
        _partial(what="the exponentials"),
        EXPONENTIALS,
    ),
    row=True,
)
GATED = Bound(
    (
        _partial(),
        Part(
            12,
            "the activation within 4; its argument's roundings, which its slope of up to "
            "1.1 passes on; the product with the other half's",
        ),
    ),
    row=True,
)
ACTIVATED = Bound(
    (Part(6, "an activation within 4, a product with the other half, rounded before it and after"),), row=True
)
ROTATED = Bound(
    (Part(3, "two products and their difference, half each, and what cancels of them"),), row=True
)
WRITTEN = Bound(ROTATED.parts, "values are copied", row=True)
ATTENTION = Bound(
    (
        _partial("D", "the scores"),
        _partial("keys", "the second product"),
        Part(16, "a score of size x, up to 32, is rounded by x/2 ulp of its exponential"),
        EXPONENTIALS,
    ),
    row=True,
    roundings=1,
)
FUSED = Bound(
    (_partial(what="the longest row"), Part(4.5, "each op of the region: " + NATIVE, "ops")),
    note="no exponential of more than 1 in size, in which a rounding ahead of it would grow",
    row=True,
    roundings="rounded",
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
    **_named("silu_and_mul gelu_and_mul", ACTIVATED),
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
