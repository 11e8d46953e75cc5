"""Small tools for rewriting IR: reading attributes, counting uses, replacing, merging locations."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from opennpu.dialects.symbols import dims_of
from torch_mlir import ir

EFFECTS = frozenset({"npu.kv_write", "npu.rope_kv_write", "npu.paged_attention", "npu.repeat", "npu.capture"})
"""The `npu` ops that read or write KV pages, or write an output; the order among them is kept."""


# ---- reading


def functions(module: ir.Module) -> Iterator[ir.Operation]:
    """The functions of the module that have a body."""
    for op in module.body.operations:
        if op.operation.name == "func.func" and len(op.operation.regions[0].blocks):
            yield op.operation


def blocks(module: ir.Module) -> Iterator[ir.Block]:
    """The blocks whose ops are whole tensor work: bodies of functions and, in them, of repeats."""
    for function in functions(module):
        yield from _nested(function.regions[0].blocks[0])


def _nested(block: ir.Block) -> Iterator[ir.Block]:
    yield block
    for op in list(block.operations):
        if op.operation.name == "npu.repeat":
            yield from _nested(op.operation.regions[0].blocks[0])


def ops_named(module: ir.Module, *names: str) -> list[ir.Operation]:
    """The ops of these names in `blocks(module)`, in order."""
    return [op.operation for block in blocks(module) for op in block.operations if op.operation.name in names]


def attr(op: ir.Operation, name: str) -> Any:
    """The Python value of an attribute: int, bool, float, str, or a list of them."""
    return _value(op.attributes[name])


def _value(attribute: ir.Attribute) -> Any:
    if isinstance(attribute, ir.ArrayAttr):
        return [_value(element) for element in attribute]
    return attribute.value


def attributes(op: ir.Operation) -> dict[str, ir.Attribute]:
    return {name: op.attributes[name] for name in op.attributes}


def definition(value: ir.Value, *names: str) -> ir.Operation | None:
    """The op that makes the value, where it is one of these (of any name when none is given)."""
    if isinstance(value, ir.BlockArgument):
        return None
    op = value.owner.operation
    return op if not names or op.name in names else None


def users(value: ir.Value) -> list[ir.Operation]:
    """The ops that use the value, one entry a use."""
    return [use.owner.operation for use in value.uses]


def only_user(value: ir.OpResult) -> ir.Operation | None:
    """The op that has the only use of the value, where it stands in the same block."""
    found = users(value)
    return found[0] if len(found) == 1 and found[0].block == value.owner.operation.block else None


def feeds_only(value: ir.OpResult, op: ir.Operation) -> bool:
    """The op has the only use of the value. (Comparing an op with None raises TypeError.)"""
    user = only_user(value)
    return user is not None and user == op


def dominates(value: ir.Value, op: ir.Operation) -> bool:
    """The value is known where the op stands: it comes from earlier in its block, or from outside."""
    source = definition(value)
    return source is None or source.block != op.block or source.is_before_in_block(op)


def slice_of(op: ir.Operation, x: ir.Value, dim: int, offset: int, size: int) -> bool:
    """Whether the op takes `size` neighbours along `dim` of x from `offset`."""
    return (
        op.name == "npu.slice"
        and op.operands[0] == x
        and (attr(op, "dim"), attr(op, "offset"), attr(op, "stride")) == (dim, offset, 1)
        and dims_of(op.results[0].type)[dim] == size
    )


def is_dead(op: ir.Operation) -> bool:
    """No result is used and nothing else would miss the op."""
    return (
        op.name.startswith("npu.")
        and op.name not in EFFECTS | {"npu.yield"}
        and not any(list(result.uses) for result in op.results)
    )


# ---- writing


def before(op: ir.Operation, *sources: ir.Operation) -> "_Inserting":
    """`with before(op, a, b):` builds ops in front of `op` that stand for `a` and `b`."""
    return _Inserting(ir.InsertionPoint(op), fused_location(sources or (op,)))


class _Inserting:
    """Sets the insertion point and the location of the ops built inside."""

    def __init__(self, point: ir.InsertionPoint, location: ir.Location):
        self.contexts = (location, point)

    def __enter__(self) -> None:
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *exception) -> None:
        for context in reversed(self.contexts):
            context.__exit__(*exception)


def fused_location(sources: Iterable[ir.Operation]) -> ir.Location:
    """One location that keeps the places of all sources, each once, in order."""
    distinct = {str(place): place for op in sources for place in _places(op.location)}
    places = list(distinct.values())
    return places[0] if len(places) == 1 else ir.Location.fused(places, context=places[0].context)


def _places(location: ir.Location) -> list[ir.Location]:
    if isinstance(location, ir.FusedLoc):
        return [place for child in location.locations for place in _places(child)]
    return [location]


def replace(op: ir.Operation, values: Sequence[ir.Value]) -> None:
    """Gives every use of the op's results the new values and erases the op."""
    for old, new in zip(op.results, values, strict=True):
        old.replace_all_uses_with(new)
    op.erase()


def erase_unused(*ops: ir.Operation) -> None:
    """Erases those of the ops, in this order, that nothing needs any more."""
    for op in ops:
        if is_dead(op):
            op.erase()
