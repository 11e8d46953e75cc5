"""The fields of an instruction as attributes.

imm     an i64; a string where the field has an enum; an f32
reg     an i64
value   array<i64: imm, register, coefficient, register, coefficient, …>
tile    [space, dtype, address as a value, s0, s1, s2]
"""

from opennpu.dialects.isa.encoding import Affine, EncodingError, TileOperand
from opennpu.dialects.isa.table import Field
from torch_mlir import ir


def to_attribute(f: Field, value: object) -> ir.Attribute:
    """The attribute of a field's value as `Instruction` holds it."""
    match value:
        case Affine(imm, terms):
            return ir.DenseI64ArrayAttr.get([imm, *(n for term in terms for n in term)])
        case TileOperand(space=space, dtype=dtype, addr=addr):
            strides = (value.s0, value.s1, value.s2)
            parts = [ir.StringAttr.get(space), ir.StringAttr.get(dtype), to_attribute(f, addr)]
            return ir.ArrayAttr.get([*parts, *map(_i64, strides)])
        case str():
            return ir.StringAttr.get(value)
        case float():
            return ir.FloatAttr.get_f32(value)
        case int() if f.kind == "value":
            return ir.DenseI64ArrayAttr.get([value])
        case int():
            return _i64(value)
    raise EncodingError(f"{f.name}: {value!r} is no value of a field")


def from_attribute(f: Field, attribute: ir.Attribute) -> object:
    """The inverse of `to_attribute`. EncodingError when the attribute has another form."""
    try:
        return _FROM[f.kind](attribute)
    except (ValueError, TypeError):
        raise EncodingError(f"{f.name}: {attribute} is no {f.kind}") from None


def _i64(value: int) -> ir.IntegerAttr:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def _imm(attribute: ir.Attribute) -> int | float | str:
    if isinstance(attribute, ir.StringAttr | ir.FloatAttr):
        return attribute.value
    return ir.IntegerAttr(attribute).value


def _value(attribute: ir.Attribute) -> Affine:
    imm, *terms = list(ir.DenseI64ArrayAttr(attribute))
    return Affine(imm, tuple(zip(terms[::2], terms[1::2], strict=True)))


def _tile(attribute: ir.Attribute) -> TileOperand:
    space, dtype, addr, s0, s1, s2 = list(ir.ArrayAttr(attribute))
    strides = (ir.IntegerAttr(s).value for s in (s0, s1, s2))
    return TileOperand(ir.StringAttr(space).value, ir.StringAttr(dtype).value, _value(addr), *strides)


_FROM = {"imm": _imm, "reg": _imm, "value": _value, "tile": _tile}
