"""Folds of ops that move elements: those of no effect, and two that are one."""

from opennpu.compiler.folds.table import folds, iota_along, result_dims, splat
from opennpu.compiler.rewriting import attr, definition
from opennpu.dialects import npu
from opennpu.dialects.npu.movement import CONCAT_SLOTS
from opennpu.dialects.symbols import dim as extent


@folds("reshape", "broadcast", "transpose", "slice")
def of_constant(op):
    value = splat(op.operands[0])
    return None if value is None else npu.constant(value, result_dims(op), npu.dtype(op.results[0]))


@folds("reshape", "broadcast", "slice")
def same_shape(op):
    return op.operands[0] if op.operands[0].type == op.results[0].type else None


@folds("reshape")
def reshape_of_reshape(op):
    inner = definition(op.operands[0], "npu.reshape")
    return None if inner is None else npu.reshape(inner.operands[0], result_dims(op))


@folds("broadcast")
def broadcast_of_broadcast(op):
    inner = definition(op.operands[0], "npu.broadcast")
    return None if inner is None else npu.broadcast_to(inner.operands[0], result_dims(op))


@folds("transpose")
def transpose_to_reshape(op):
    """Where the dimensions that are not 1 keep their order."""
    perm, shape = attr(op, "perm"), npu.dims(op.operands[0])
    moved = [p for p in perm if shape[p] != 1]
    return npu.reshape(op.operands[0], result_dims(op)) if moved == sorted(moved) else None


@folds("transpose")
def transpose_of_transpose(op):
    inner = definition(op.operands[0], "npu.transpose")
    if inner is None:
        return None
    first = attr(inner, "perm")
    return npu.transpose(inner.operands[0], [first[p] for p in attr(op, "perm")])


@folds("slice")
def slice_of_slice(op):
    inner = definition(op.operands[0], "npu.slice")
    if inner is None or attr(inner, "dim") != attr(op, "dim"):
        return None
    dim, stride = attr(op, "dim"), attr(inner, "stride")
    offset = attr(inner, "offset") + attr(op, "offset") * stride
    return npu.slice_(inner.operands[0], dim, offset, result_dims(op)[dim], stride * attr(op, "stride"))


@folds("slice")
def slice_of_concat(op):
    """From the one operand that holds it all."""
    inner, dim = definition(op.operands[0], "npu.concat"), attr(op, "dim")
    if inner is None or attr(inner, "dim") != dim or attr(op, "stride") != 1:
        return None
    offset, size = attr(op, "offset"), result_dims(op)[dim]
    for x in inner.operands:
        width = npu.dims(x)[dim]
        if offset == 0 and size == width:
            return x
        if not isinstance(width, int):
            return None
        if offset < width:
            inside = isinstance(size, int) and offset + size <= width
            return npu.slice_(x, dim, offset, size) if inside else None
        offset -= width
    return None


@folds("concat")
def concat_simpler(op):
    """Without empty operands, nested concats opened, neighbouring slices of one value joined."""
    dim, given = attr(op, "dim"), list(op.operands)
    xs = [x for x in _opened(given, dim) if npu.dims(x)[dim] != 0]
    if not xs:
        return None
    joined = xs[:1]
    for x in xs[1:]:
        whole = _joined(joined[-1], x, dim)
        joined[-1:] = [joined[-1], x] if whole is None else [whole]
    return npu.concat(joined, dim) if joined != given else None


def _opened(xs, dim):
    opened = []
    for x in xs:
        inner = definition(x, "npu.concat")
        opened += list(inner.operands) if inner and attr(inner, "dim") == dim else [x]
    return opened if len(opened) <= CONCAT_SLOTS else xs


def _joined(a, b, dim):
    """Slices of one value, b beginning where a ends, as one slice."""
    first, second = definition(a, "npu.slice"), definition(b, "npu.slice")
    if first is None or second is None or first.operands[0] != second.operands[0]:
        return None
    if any((attr(s, "dim"), attr(s, "stride")) != (dim, 1) for s in (first, second)):
        return None
    if extent(npu.dims(a)[dim] + attr(first, "offset")) != attr(second, "offset"):
        return None
    size = extent(npu.dims(a)[dim] + npu.dims(b)[dim])
    return npu.slice_(first.operands[0], dim, attr(first, "offset"), size)


@folds("gather")
def gather_of_all_rows(op):
    """Row i for index i: the table, in the result's shape."""
    table, index = op.operands
    along = iota_along(index)
    all_once = along and along[1:] == (0, 1) and npu.dims(index)[along[0]] == npu.dims(table)[0]
    if not all_once or any(d != 1 for i, d in enumerate(npu.dims(index)) if i != along[0]):
        return None
    return npu.reshape(table, result_dims(op))


@folds("take")
def take_of_all(op):
    """Element j for index j."""
    x, index = op.operands
    last = len(npu.dims(index)) - 1
    return x if iota_along(index) == (last, 0, 1) and x.type == op.results[0].type else None
