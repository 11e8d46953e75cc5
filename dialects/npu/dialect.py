"""The `npu` dialect itself, and what its ops share: the verifier's frame and its checks."""

from collections.abc import Sequence
from typing import Any

from opennpu.dialects.isa.table import ISA
from opennpu.dialects.symbols import Dim, Sym, dims_of
from torch_mlir import ir
from torch_mlir.dialects import ext
from torch_mlir.dialects.ext import Operand, Result
from torch_mlir.ir import RankedTensorType

__all__ = [
    "BINARY",
    "COMPARISONS",
    "DTYPES",
    "FLOATS",
    "INTEGERS",
    "LOGICAL",
    "NPU",
    "REDUCE",
    "UNARY",
    "Invalid",
    "broadcast",
    "dims",
    "dtype",
    "show",
]

FLOATS = ("f32", "bf16")
INTEGERS = ("i64", "i32", "i8")
DTYPES = (*FLOATS, *INTEGERS, "i1")

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
LOGICAL = ("and", "or", "xor")
UNARY = tuple(ISA.enums["unary"])
BINARY = tuple(ISA.enums["binary"])
REDUCE = ("sum", "max", "min", "argmax", "mean")
INTEGER_UNARY = ("copy", "neg", "abs", "sign", "square", "relu")

Tensor = Operand[RankedTensorType]
TensorResult = Result[RankedTensorType]


class NPU(ext.Dialect, name="npu"):
    """Whole tensors: what to compute."""


class Invalid(Exception):
    """An invariant of an op does not hold; the text says which."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Invalid(message)


class NpuOp(NPU.Operation):
    """Base of the ops: subclasses state their invariants in `check`, which raises Invalid."""

    @classmethod
    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for field in cls._fields:
            if isinstance(field, ext.AttributeDef):
                # The inherited one takes what is false (`false`, `[]`) for a missing attribute.
                field.process_attr = lambda attr: attr

    def check(self) -> None:
        """Raises Invalid where an invariant does not hold."""

    @classmethod
    def verify_invariants(cls, op: ir.OpView) -> bool:
        try:
            for value in (*op.operands, *op.results):
                require(dtype(value) in DTYPES, f"element type {dtype(value)} is not supported")
            op.check()
        except (Invalid, ValueError) as problem:
            op.location.emit_error(f"'{cls.OPERATION_NAME}' op {problem}")
            return False
        return True


# ---- effects on KV memory


class ReadsKV(ir.MemoryEffectsOpInterface):
    """Reads KV pages: dead reads go, equal reads without a write between them are one."""

    @staticmethod
    def get_effects(op: ir.OpView, effects: ir.MemoryEffectInstancesList) -> None:
        effects.append(ir.MemoryEffect.Read)


class WritesKV(ir.MemoryEffectsOpInterface):
    """Writes KV pages, or an output: never dead, never moved over a read."""

    @staticmethod
    def get_effects(op: ir.OpView, effects: ir.MemoryEffectInstancesList) -> None:
        effects.append(ir.MemoryEffect.Write)


# ---- groups of operands or results of different types


def operand_slots(name: str, count: int) -> dict[str, Any]:
    """Annotations of `count` optional operands `name0`, `name1`, …

    IRDL wants one type for all operands of a variadic group, so a group of tensors of
    different shapes is a row of optional operands, filled from the left.
    """
    return {f"{name}{i}": Tensor | None for i in range(count)}


def result_slots(name: str, count: int) -> dict[str, Any]:
    """As operand_slots, for results."""
    return {f"{name}{i}": TensorResult | None for i in range(count)}


def fill_slots(name: str, count: int, values: Sequence[Any]) -> dict[str, Any]:
    """Keyword arguments that put `values` into the slots; ValueError when there are too many."""
    if len(values) > count:
        raise ValueError(f"{len(values)} values for the {count} slots of {name}")
    padded = [*values, *[None] * (count - len(values))]
    return {f"{name}{i}": value for i, value in enumerate(padded)}


# ---- checks


def dtype(value: ir.Value) -> str:
    """The element type of a tensor value as text, `f32`; of a scalar its type."""
    type_ = value.type
    return str(type_.element_type if isinstance(type_, RankedTensorType) else type_)


def dims(value: ir.Value) -> tuple[Dim, ...]:
    """The extents of a tensor value; ValueError where one is unknown."""
    return dims_of(value.type)


def show(extents: Sequence[Dim]) -> str:
    """`[T, 576]`"""
    return "[" + ", ".join(str(d) for d in extents) + "]"


def require_dims(name: str, value: ir.Value, expected: Sequence[Dim]) -> None:
    require(
        dims(value) == tuple(expected), f"{name} has extents {show(dims(value))}, expected {show(expected)}"
    )


def require_dtype(name: str, value: ir.Value, *allowed: str) -> None:
    require(dtype(value) in allowed, f"{name} is {dtype(value)}, expected {' or '.join(allowed)}")


def require_dim(dim: int, rank: int) -> None:
    require(0 <= dim < rank, f"dim {dim} is outside rank {rank}")


def require_one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    require(value in allowed, f"unknown {name} '{value}'; one of {', '.join(allowed)}")


def require_multiple(name: str, extent: Dim, factor: int) -> None:
    require(factor > 0, f"{name} must be divided by a positive number, not {factor}")
    try:
        Sym.of(extent).exact_div(factor)
    except ValueError:
        raise Invalid(f"{name} {extent} is not a multiple of {factor}") from None


def broadcast(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The common shape by numpy's rules; Invalid where extents differ and neither is 1."""
    rank = max(len(shape) for shape in shapes)
    result = []
    for i in range(rank):
        extents = {s[i - rank] for s in shapes if i - rank >= -len(s)} - {1}
        require(len(extents) <= 1, "shapes " + " and ".join(map(show, shapes)) + " do not broadcast")
        result.append(extents.pop() if extents else 1)
    return tuple(result)
