"""Element by element: arithmetic, comparison, logic, selection, casts."""

import math

from opennpu.compiler.conversions.table import (
    as_float,
    as_tensor,
    converts,
    is_float,
    promote,
    promoted,
)
from opennpu.dialects import npu

# ---- one operand


def number(x, op):
    if npu.dtype(x) == "i1":  # of sign alone
        return x
    return npu.unary(op, x)


def real(x, op):
    return npu.unary(op, as_float(x))


for op in ("neg", "abs", "sign", "square", "relu"):
    converts(f"aten.{op}", op=op)(number)

converts("aten.sgn", op="sign")(number)

for op in [
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "tanh",
    "erf",
    "sigmoid",
    "silu",
    "sin",
    "cos",
]:
    converts(f"aten.{op}", op=op)(real)

converts("aten.reciprocal", op="recip")(real)


@converts("aten.log2", base=2)
@converts("aten.log10", base=10)
def log_of_base(x, base):
    y = npu.unary("log", npu.cast(x, "f32"))
    return npu.binary("mul", y, as_tensor(1 / math.log(base), "f32"))


@converts("aten.exp2")
def exp2(x):
    return power(2.0, as_float(x))


@converts("aten.log1p")
def log1p(x):
    """x · log(u) / (u - 1), u = 1 + x rounded: its error cancels (Kahan; Goldberg 1991, theorem 4)."""
    x = npu.cast(x, "f32")
    u = npu.binary("add", x, as_tensor(1.0, "f32"))
    rest = npu.binary("sub", u, as_tensor(1.0, "f32"))
    log = npu.unary("log", u)
    exact = npu.binary("mul", log, npu.binary("div", x, rest))
    y = npu.select(npu.binary("eq", rest, as_tensor(0.0, "f32")), x, exact)
    return npu.select(isinf(x), log, y)


@converts("aten.expm1")
def expm1(x):
    """(u - 1) · x / log(u), u = e^x rounded: as log1p."""
    x = npu.cast(x, "f32")
    u = npu.unary("exp", x)
    rest, log = npu.binary("sub", u, as_tensor(1.0, "f32")), npu.unary("log", u)
    exact = npu.binary("mul", rest, npu.binary("div", x, log))
    y = npu.select(npu.binary("eq", rest, as_tensor(0.0, "f32")), x, exact)
    far = npu.binary("gt", npu.unary("abs", x), as_tensor(1.0, "f32"))  # where nothing cancels
    return npu.select(far, rest, y)


@converts("aten.sinh")
def sinh(x):
    """(e^x - 1) · (1 + e^-x) / 2, where nothing cancels."""
    inverse = npu.unary("exp", npu.unary("neg", npu.cast(x, "f32")))
    return npu.binary("mul", expm1(x), arithmetic("mul", arithmetic("add", inverse, 1.0), 0.5))


@converts("aten.cosh")
def cosh(x):
    x = npu.cast(x, "f32")
    return arithmetic(
        "mul", arithmetic("add", npu.unary("exp", x), npu.unary("exp", npu.unary("neg", x))), 0.5
    )


@converts("aten.tan")
def tan(x):
    x = npu.cast(x, "f32")
    return npu.binary("div", npu.unary("sin", x), npu.unary("cos", x))


for op in ("floor", "ceil", "round", "trunc"):

    @converts(f"aten.{op}", op=op)
    def whole(x, op):
        return npu.unary(op, x) if is_float(npu.dtype(x)) else x


@converts("aten.gelu")
def gelu(x, approximate):
    return npu.unary("gelu_tanh" if approximate == "tanh" else "gelu", x)


@converts("aten.leaky_relu")
def leaky_relu(x, slope):
    scaled = npu.binary("mul", x, as_tensor(slope, npu.dtype(x)))
    return npu.select(npu.binary("ge", x, as_tensor(0, npu.dtype(x))), x, scaled)


# ---- two operands


BOOLEAN = {"add": "or", "max": "or", "mul": "and", "min": "and"}
"""Arithmetic → what it is of bools."""


def arithmetic(op, a, b):
    a, b = promoted(a, b)
    if npu.dtype(a) == "i1" and op in BOOLEAN:
        op = BOOLEAN[op]
    return npu.binary(op, a, b)


@converts("aten.add.Tensor", "aten.add.Scalar", op="add")
@converts("aten.sub.Tensor", "aten.sub.Scalar", op="sub")
def add(a, b, alpha, op):
    return arithmetic(op, a, b if alpha == 1 else scaled(b, alpha))


@converts("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(a, b, alpha):
    return add(b, a, alpha, op="sub")


def scaled(x, factor):
    if isinstance(x, int | float):
        return x * factor
    return x if factor == 1 else arithmetic("mul", x, factor)


@converts("aten.mul.Tensor", "aten.mul.Scalar", op="mul")
@converts("aten.maximum", op="max")
@converts("aten.minimum", op="min")
@converts("aten.fmod.Tensor", "aten.fmod.Scalar", op="mod")
def simple(a, b, op):
    return arithmetic(op, a, b)


@converts("aten.fmax", op="max")
@converts("aten.fmin", op="min")
def extreme_number(a, b, op):
    """The other one where one is no number."""
    a, b = promoted(a, b)
    return npu.select(isnan(a), b, npu.select(isnan(b), a, arithmetic(op, a, b)))


@converts("aten.hypot")
def hypot(a, b):
    """By the greater one, whose square could be too large."""
    a, b = (npu.unary("abs", npu.cast(x, "f32")) for x in (a, b))
    large, small = npu.binary("max", a, b), npu.binary("min", a, b)
    ratio = npu.binary("div", small, large)
    y = npu.binary("mul", large, npu.unary("sqrt", arithmetic("add", npu.unary("square", ratio), 1.0)))
    whole = npu.binary("or", npu.binary("eq", small, as_tensor(0.0, "f32")), isinf(large))
    return npu.select(whole, large, y)


@converts("aten.div.Tensor", "aten.div.Scalar")
def div(a, b):
    element = promote(a, b)
    element = element if is_float(element) else "f32"
    return npu.binary("div", as_tensor(a, element), as_tensor(b, element))


@converts("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def div_mode(a, b, mode):
    if mode is None:
        return div(a, b)
    return floor_divide(a, b) if mode == "floor" else truncating_divide(*promoted(a, b))


def truncating_divide(a, b):
    if not is_float(npu.dtype(a)):
        return npu.binary("div", a, b)
    quotient = npu.unary("trunc", npu.binary("div", npu.cast(a, "f32"), npu.cast(b, "f32")))
    return npu.cast(quotient, npu.dtype(a))


@converts("aten.floor_divide", "aten.floor_divide.Scalar")
def floor_divide(a, b):
    """From the exact rest, as PyTorch does: a rounded quotient can lie beyond the next whole number."""
    a, b = promoted(a, b)
    element = npu.dtype(a)
    if is_float(element):
        a, b = npu.cast(a, "f32"), npu.cast(b, "f32")
    rest = npu.binary("mod", a, b)
    quotient = npu.binary("div", npu.binary("sub", a, rest), b)
    lower = npu.binary("sub", quotient, npu.cast(signs_differ(rest, b), npu.dtype(a)))
    if not is_float(element):
        return lower
    by_zero = npu.binary("eq", b, as_tensor(0, "f32"))
    return npu.cast(npu.select(by_zero, npu.binary("div", a, b), npu.unary("round", lower)), element)


@converts("aten.remainder.Scalar", "aten.remainder.Tensor")
def remainder(a, b):
    a, b = promoted(a, b)
    rest = npu.binary("mod", a, b)  # exact
    return npu.select(signs_differ(rest, b), npu.binary("add", rest, b), rest)


def signs_differ(rest, b):
    """Where a rest that truncates and one that floors differ: by b."""
    zero = as_tensor(0, npu.dtype(b))
    opposite = npu.binary("xor", npu.binary("lt", rest, zero), npu.binary("lt", b, zero))
    return npu.binary("and", npu.binary("ne", rest, zero), opposite)


@converts("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def power(x, exponent):
    known = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "recip"}
    if isinstance(exponent, int | float) and not isinstance(x, int | float):
        x = npu.cast(x, promote(x, exponent))
        if exponent == 1:
            return x
        if exponent == 3:
            return npu.binary("mul", npu.unary("square", x), x)
        if exponent in known and (is_float(npu.dtype(x)) or exponent == 2):
            return npu.unary(known[exponent], x)
    return arithmetic("pow", x, exponent)


# ---- bounds


@converts("aten.clamp", "aten.clamp.Tensor")
def clamp(x, low, high):
    for op, bound in (("max", low), ("min", high)):
        if bound is not None:
            x = arithmetic(op, x, bound)
    return x


@converts("aten.clamp_min", "aten.clamp_min.Tensor")
def clamp_min(x, low):
    return clamp(x, low, None)


@converts("aten.clamp_max", "aten.clamp_max.Tensor")
def clamp_max(x, high):
    return clamp(x, None, high)


@converts("aten.hardtanh")
def hardtanh(x, low, high):
    return clamp(x, low, high)


# ---- comparison and logic

for op in ("eq", "ne", "lt", "le", "gt", "ge"):
    converts(f"aten.{op}.Tensor", f"aten.{op}.Scalar", op=op)(simple)


def as_bool(x):
    return npu.cast(x, "i1")


@converts("aten.logical_not")
def logical_not(x):
    return npu.unary("not", as_bool(x))


@converts("aten.bitwise_not")
def bitwise_not(x):
    if npu.dtype(x) == "i1":
        return npu.unary("not", x)
    return npu.binary("xor", x, as_tensor(-1, npu.dtype(x)))


def logical(a, b, op):
    return npu.binary(op, as_bool(a), as_bool(b))


for op in ("and", "or", "xor"):
    converts(f"aten.logical_{op}", op=op)(logical)
    for name in (f"bitwise_{op}", f"__{op}__"):
        converts(f"aten.{name}.Tensor", f"aten.{name}.Scalar", op=op)(simple)


# ---- shifts


@converts("aten.bitwise_left_shift.Tensor", "aten.bitwise_left_shift.Tensor_Scalar")
@converts("aten.__lshift__.Tensor", "aten.__lshift__.Scalar")
def left_shift(x, count):
    return arithmetic("mul", x, power(2, index_like(count, x)))


@converts("aten.bitwise_right_shift.Tensor", "aten.bitwise_right_shift.Tensor_Scalar")
@converts("aten.__rshift__.Tensor", "aten.__rshift__.Scalar")
def right_shift(x, count):
    """In two steps: 2 to the power of 31 is no int32."""
    count = index_like(count, x)
    half = floor_divide(count, 2)
    first = floor_divide(x, power(2, half))
    return floor_divide(first, power(2, npu.binary("sub", count, half)))


def index_like(count, x):
    """A count of bits as a tensor of x's dtype."""
    return as_tensor(count, npu.dtype(x))


# ---- selection


@converts("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(cond, a, b):
    return npu.select(as_bool(cond), *promoted(a, b))


@converts("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def masked_fill(x, mask, value):
    return npu.select(as_bool(mask), as_tensor(value, npu.dtype(x)), x)


@converts("aten.isnan")
def isnan(x):
    return npu.binary("ne", x, x)


@converts("aten.isinf")
def isinf(x):
    if not is_float(npu.dtype(x)):
        return isnan(x)
    return npu.binary("eq", npu.unary("abs", x), as_tensor(math.inf, npu.dtype(x)))


@converts("aten.isfinite")
def isfinite(x):
    return npu.unary("not", npu.binary("or", isnan(x), isinf(x)))


# ---- casts: the result's dtype says which


@converts(
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten.to.other",
    "aten.to.device",
    "aten.to.prim_Device",
    "aten._to_copy",
    "aten.type_as",
    "prims.convert_element_type",
    "prim.NumToTensor.Scalar",
)
def cast(x, *_, result):
    return as_tensor(x, result.dtype)
