"""What the vector unit does to an element, in numpy: conversions, and the operations by name.

Written from the text of `isa.toml`, not from an engine. Floats are computed in float64 and rounded
once to float32, which is how a correctly rounded function is had of the host's; integers in int64.
"""

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i8": np.dtype(np.int8),
    "bool": np.dtype(np.uint8),
}
"""The dtypes of the instruction set as they lie in memory; a bool is a byte that is 0 or not."""

FLOATS = frozenset({"f32", "bf16"})
LANES = 16


def wide(raw: np.ndarray, dtype: str) -> np.ndarray:
    """What an operation sees of elements in memory: float64 of floats, int64 of integers and bools."""
    if dtype == "bool":
        return (raw != 0).astype(np.int64)
    return raw.astype(np.float32).astype(np.float64) if dtype in FLOATS else raw.astype(np.int64)


def floating(x: np.ndarray) -> np.ndarray:
    """An operand of a float operation: integers are converted to f32."""
    return x if x.dtype == np.float64 else x.astype(np.float32).astype(np.float64)


def f32(x: np.ndarray) -> np.ndarray:
    """Rounded to f32, still in float64."""
    return x.astype(np.float32).astype(np.float64)


def narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """A result, as it is stored: of a float operation (rounded to f32 first) or of one in int64."""
    if dtype == "bool":
        return (x != 0).astype(np.uint8)
    if x.dtype == np.int64:
        return x.astype(np.float32).astype(DTYPES[dtype]) if dtype in FLOATS else x.astype(DTYPES[dtype])
    x = x.astype(np.float32)
    return x.astype(DTYPES[dtype]) if dtype in FLOATS else _saturated(x, DTYPES[dtype])


def _saturated(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Towards zero; what is too large is the largest there is, NaN is 0."""
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    inside = (x > least) & (x < most)
    whole = np.where(inside, x, 0).astype(dtype)
    return np.where(x >= most, most, np.where(x <= least, least, whole)).astype(dtype)


# ---- unary


def _each(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    return np.vectorize(function, otypes=[np.float64])


_erf, _erfc = _each(math.erf), _each(math.erfc)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    """0.5·x·(1 + tanh u), without the cancellation for u < 0."""
    return x * _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


INTEGER_UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "copy": lambda x: x,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "square": np.square,
    "relu": lambda x: np.maximum(x, 0),
    "not": lambda x: (x == 0).astype(np.int64),
}
"""What integers do in int64; all else converts them."""

UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "copy": lambda x: x,
    "neg": np.negative,
    "abs": np.abs,
    "sign": lambda x: (x > 0) * 1.0 - (x < 0),
    "square": np.square,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "recip": lambda x: 1 / x,
    "tanh": np.tanh,
    "erf": _erf,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: 0.5 * x * _erfc(-x / math.sqrt(2)),
    "gelu_tanh": _gelu_tanh,
    "relu": lambda x: np.where(x < 0, 0, x),
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "trunc": np.trunc,
    "not": lambda x: (x == 0) * 1.0,
}


def unary(op: str, x: np.ndarray) -> np.ndarray:
    if x.dtype == np.int64 and op in INTEGER_UNARY:
        return INTEGER_UNARY[op](x)
    return f32(UNARY[op](floating(x)))


# ---- binary


def _quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Towards zero; 0 for a divisor of 0. -1 apart: the least integer over it wraps."""
    divisor = np.where((b == 0) | (b == -1), 1, b)
    down = a // divisor
    towards_zero = down + ((down < 0) & (down * divisor != a))
    return np.where(b == 0, 0, np.where(b == -1, -a, towards_zero))


def _power(base: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """By squaring; of a negative exponent the integer part."""
    result, square, left = np.ones_like(base), base.copy(), np.maximum(exponent, 0)
    while left.any():
        result = np.where(left % 2 == 1, result * square, result)
        square, left = square * square, left // 2
    odd = np.where(exponent % 2 == 0, 1, -1)
    inverse = np.where(base == 1, 1, np.where(base == -1, odd, 0))
    return np.where(exponent < 0, inverse, result)


COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}

INTEGER_BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _quotient,
    "max": np.maximum,
    "min": np.minimum,
    "pow": _power,
    "mod": lambda a, b: np.where(b == 0, 0, a - _quotient(a, b) * b),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    **COMPARISONS,
}

BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": lambda a, b: np.where(np.isnan(a) | (a > b), a, b),
    "min": lambda a, b: np.where(np.isnan(a) | (a < b), a, b),
    "pow": np.power,
    "mod": np.fmod,
    "and": lambda a, b: (a != 0) & (b != 0),
    "or": lambda a, b: (a != 0) | (b != 0),
    "xor": lambda a, b: (a != 0) ^ (b != 0),
    **COMPARISONS,
}


def binary(op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype == b.dtype == np.int64:
        return INTEGER_BINARY[op](a, b).astype(np.int64)
    return f32(BINARY[op](floating(a), floating(b)).astype(np.float64))


# ---- along the last dimension


def lane_sum(x: np.ndarray, square: bool = False) -> np.ndarray:
    """Sums of float64 values that are f32: 16 lanes take turns, then are added in halves.

    A fused multiply-add is one rounding to f32, of a float64 result.
    """
    steps = -(-x.shape[-1] // LANES)
    padded = np.zeros((*x.shape[:-1], steps * LANES))
    padded[..., : x.shape[-1]] = x
    lanes = np.zeros((*x.shape[:-1], LANES))
    for step in range(steps):
        term = padded[..., step * LANES : (step + 1) * LANES]
        lanes = f32(lanes + (term * term if square else term))
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = f32(lanes[..., :half] + lanes[..., half:])
    return lanes[..., 0]


def _greatest(x: np.ndarray) -> np.ndarray:
    least = np.iinfo(np.int64).min if x.dtype == np.int64 else -np.inf
    return x.max(-1, initial=least)


def _least(x: np.ndarray) -> np.ndarray:
    most = np.iinfo(np.int64).max if x.dtype == np.int64 else np.inf
    return x.min(-1, initial=most)


def _first_greatest(x: np.ndarray) -> np.ndarray:
    return x.argmax(-1).astype(np.int64) if x.shape[-1] else np.zeros(x.shape[:-1], np.int64)


REDUCE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sum": lambda x: x.sum(-1) if x.dtype == np.int64 else lane_sum(x),
    "sumsq": lambda x: (x * x).sum(-1) if x.dtype == np.int64 else lane_sum(x, square=True),
    "max": _greatest,
    "min": _least,
    "argmax": _first_greatest,
}
