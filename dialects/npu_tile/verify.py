"""Verifiers of `npu_tile`; the errors stand at the operation's source location."""

from collections.abc import Callable, Iterator

from opennpu.dialects.isa.table import DTYPE_BYTES, ELEMENT, ISA, Field, InstructionSpec
from opennpu.dialects.npu_tile.effects import is_derived, operand_names
from opennpu.dialects.npu_tile.types import constant_value, dtype_of, memref_bytes, space_of
from torch_mlir import ir


class _Invalid(Exception):
    """What is wrong with an operation."""


def _reported(check: Callable[..., None]) -> Callable[..., bool]:
    def run(*args: object) -> bool:
        op = args[-1]
        try:
            check(*args)
        except _Invalid as problem:
            op.location.emit_error(f"'{op.name}' op {problem}")
            return False
        return True

    return run


@_reported
def engine(spec: InstructionSpec, op: ir.OpView) -> None:
    """An engine operation: spaces, dtypes, enums, and static accesses within their buffers."""
    operands = dict(zip(operand_names(spec), op.operands, strict=True))
    for f in spec.fields:
        if f.on_chip:
            _check_buffer(f, operands[f.name].type)
            if f.kind == "tile":
                _check_strides(f, op)
        elif f.kind == "imm" and not is_derived(spec, f):
            _check_imm(f, _attribute(op, f.name), operands)
    for f in spec.buffers:
        _check_bounds(f, op, operands)


@_reported
def alloc(op: ir.OpView) -> None:
    """A buffer has static extents, a dtype of the instruction set, and a space."""
    memref = ir.MemRefType(op.results[0].type)
    space = space_of(memref)
    if not memref.has_static_shape or any(extent < 1 for extent in memref.shape):
        raise _Invalid(f"needs static extents above 0, got {memref}")
    if dtype_of(memref) is None:
        raise _Invalid(f"elements must be one of {', '.join(DTYPE_BYTES)}, got {memref}")
    if space not in ISA.enums["space"]:
        raise _Invalid(f'needs memory space "spm" or "acc", got {memref}')
    if space == "acc" and dtype_of(memref) != "f32":
        raise _Invalid(f"the accumulator holds f32, got {memref}")


@_reported
def load_scalar(op: ir.OpView) -> None:
    _check_enum(ISA["s_ld"].by_name["dtype"], _attribute(op, "dtype"))


@_reported
def queue(op: ir.OpView) -> None:
    _check_enum(ISA["set_flag"].by_name["queue"], _attribute(op, "queue"))


@_reported
def slot(op: ir.OpView) -> None:
    if op.operation.parent.name != "scf.for":
        raise _Invalid("must stand directly in an scf.for")
    if ir.IntegerAttr(_attribute(op, "slots")).value < 1:
        raise _Invalid("needs at least one slot")


def _attribute(op: ir.OpView, name: str) -> ir.Attribute:
    if name not in op.attributes:
        raise _Invalid(f"requires attribute '{name}'")
    return op.attributes[name]


def _check_buffer(f: Field, memref: ir.Type) -> None:
    space, dtype = space_of(memref), dtype_of(memref)
    spaces = (f.space,) if f.space else ISA.enums["space"]
    if space not in spaces:
        raise _Invalid(f"{f.name} must lie in {' or '.join(spaces)}, got {memref}")
    if dtype is None or (f.elements and dtype != f.elements):
        raise _Invalid(f"{f.name} must hold {f.elements or 'a dtype of the chip'}, got {memref}")


def _check_strides(f: Field, op: ir.OpView) -> None:
    strides = _attribute(op, f"{f.name}_strides")
    if not isinstance(strides, ir.DenseI64ArrayAttr) or len(strides) != 3:
        raise _Invalid(f"{f.name}_strides must be three byte strides, array<i64: s0, s1, s2>")


def _check_imm(f: Field, attribute: ir.Attribute, operands: dict[str, ir.Value]) -> None:
    if f.enum is not None:
        _check_enum(f, attribute)
        dtype = dtype_of(operands[f.dtype_of].type) if f.dtype_of else None
        if f.dtype_of and ir.StringAttr(attribute).value != dtype:
            raise _Invalid(f"{f.name} is {attribute}, but {f.dtype_of} holds {dtype}")
        return
    kinds = {False: (ir.IntegerAttr,), True: (ir.FloatAttr,)}.get(f.f32, (ir.IntegerAttr, ir.FloatAttr))
    if not isinstance(attribute, kinds):
        raise _Invalid(f"{f.name} must be {'a float' if f.f32 is True else 'a number'}, got {attribute}")


def _check_enum(f: Field, attribute: ir.Attribute) -> None:
    names = f.only or ISA.enums[f.enum]
    if not isinstance(attribute, ir.StringAttr) or attribute.value not in names:
        raise _Invalid(f"{f.name} must be one of {', '.join(names)}, got {attribute}")


def _check_bounds(f: Field, op: ir.OpView, operands: dict[str, ir.Value]) -> None:
    """The bytes [low, high) that the field's walk touches lie in the buffer, where all is constant."""
    memref = operands[f.name].type
    element = DTYPE_BYTES[dtype_of(memref)]
    low = constant_value(operands[f"{f.name}_offset"])
    if low is None or f.run is None:
        return
    lookup = _Lookup(f, op, operands, element)
    high = low
    for count, stride in lookup.walk():
        if count is None or stride is None:
            return
        if count <= 0:
            return
        reach = (count - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    run = lookup.number(f.run)
    if run is None or run <= 0:
        return
    if low < 0 or high + run > memref_bytes(memref):
        size = memref_bytes(memref)
        raise _Invalid(f"{f.name} touches bytes [{low}, {high + run}) of a buffer of {size} bytes, {memref}")


class _Lookup:
    """The numbers of a field's walk; None where one is not constant."""

    def __init__(self, f: Field, op: ir.OpView, operands: dict[str, ir.Value], element: int):
        self.field, self.op, self.operands, self.element = f, op, operands, element

    def walk(self) -> Iterator[tuple[int | None, int | None]]:
        for count, stride in self.field.walk:
            yield self.number(count), self.number(stride)

    def number(self, name: str) -> int | None:
        if name == ELEMENT:
            return self.element
        if name in self.operands:
            return constant_value(self.operands[name])
        if self.field.kind == "tile" and name in ("s0", "s1", "s2"):
            return ir.DenseI64ArrayAttr(self.op.attributes[f"{self.field.name}_strides"])[int(name[1])]
        return ir.IntegerAttr(self.op.attributes[name]).value
