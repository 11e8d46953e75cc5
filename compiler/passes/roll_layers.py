"""npu-roll-layers: a run of equal layers becomes one `npu.repeat` over stacked parameters.

1. Ops that depend on neither parameters nor KV pages move to the front, one of each kind:
   what all layers share stands before them.
2. Every op gets a token: all of it but its operands, its `layer` and the names of its
   parameters. A run of equal tokens at distance p is a candidate for layers of p ops.
3. Within a candidate, a start and a count are sought such that the operands agree too: each
   comes from the same place of its layer or the one before, is a parameter, or is the same
   value in all layers. `Layers.of` is that check; the first layer may take from outside what
   the others take from the layer before.
4. The longest is rolled, and the search goes on in what is left.
"""

from dataclasses import dataclass, field

import numpy as np
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import EFFECTS, attributes, functions, replace, users
from opennpu.dialects.npu import build
from opennpu.dialects.npu.structure import SLOTS, captured
from torch_mlir import ir

MAX_CANDIDATES = 8
"""Candidates looked at closely, the best first; the rest cover less."""


@register_pass("npu-roll-layers", "repeated layers → one npu.repeat with stacked parameters")
def run(module: ir.Module) -> None:
    """Rolls every run of at least two equal layers in the functions of the module."""
    for function in functions(module):
        block = function.regions[0].blocks[0]
        params = _parameter_names(function)
        _hoist_shared(block, params)
        while layers := _find(Body(block, params)):
            _roll(layers, params)
        _drop_unused_parameters(function, params)


def _parameter_names(function: ir.Operation) -> dict[ir.Value, str]:
    arguments = function.regions[0].blocks[0].arguments
    if "arg_attrs" not in function.attributes:
        return {}
    attrs = function.opview.arg_attrs
    return {
        value: a["npu.param"].value for value, a in zip(arguments, attrs, strict=True) if "npu.param" in a
    }


# ---- tokens


class Body:
    """The ops of a function with what the search compares."""

    def __init__(self, block: ir.Block, params: dict[ir.Value, str]):
        self.params = params
        self.ops = [op.operation for op in block.operations][:-1]
        self.index = {op_result: i for i, op in enumerate(self.ops) for op_result in op.results}
        self.reads = [[*op.operands, *(captured(op) if len(op.regions) else ())] for op in self.ops]
        numbers: dict[tuple, int] = {}
        self.tokens = np.array(
            [
                -1 - i if op.name == "npu.repeat" else numbers.setdefault(_token(op), len(numbers))
                for i, op in enumerate(self.ops)
            ]
        )


def _token(op: ir.Operation) -> tuple:
    """All of an op but its operands, its layer and its location."""
    kept = tuple((name, value) for name, value in attributes(op).items() if name != "layer")
    types = tuple(value.type for value in (*op.operands, *op.results))
    return (op.name, kept, types, tuple(_region_token(region) for region in op.regions))


def _region_token(region: ir.Region) -> tuple:
    """The ops of a region; values are numbered as they come."""
    numbers: dict[ir.Value, int] = {}
    return tuple(
        (
            _token(op.operation),
            tuple(numbers.setdefault(v, len(numbers)) for v in (*op.operands, *op.results)),
        )
        for block in region.blocks
        for op in block.operations
    )


# ---- the search


def _find(body: Body) -> "Layers | None":
    """The rollable layers that cover the most ops; of equals those that carry the least."""
    found: list[Layers] = []
    for start, stop, period in _candidates(body.tokens):
        if any(layers.size >= _coverage(start, stop, period) for layers in found):
            break
        for first in range(start, min(start + period, stop - 2 * period + 1)):
            if layers := _longest_from(body, first, period, (stop - first) // period):
                found.append(layers)
    return max(found, key=lambda found: (found.size, -found.period, -len(found.carried)), default=None)


def _coverage(start: int, stop: int, period: int) -> int:
    """The ops of the whole layers in a run."""
    return (stop - start) // period * period


def _candidates(tokens: np.ndarray) -> list[tuple[int, int, int]]:
    """(start, stop, period) of runs with tokens[i] == tokens[i + period], the longest first."""
    runs = []
    for period in range(1, len(tokens) // 2 + 1):
        equal = np.concatenate(([False], tokens[:-period] == tokens[period:], [False]))
        edges = np.flatnonzero(equal[1:] != equal[:-1]).reshape(-1, 2)
        for start, end in edges[edges[:, 1] - edges[:, 0] >= period].tolist():
            runs.append((start, end + period, period))
    return sorted(runs, key=lambda run: (-_coverage(*run), run[2]))[:MAX_CANDIDATES]


def _longest_from(body: Body, start: int, period: int, most: int) -> "Layers | None":
    """As many layers as can be rolled that begin at `start`, at most `most`."""
    tries = (Layers.of(body, start, period, count) for count in range(most, 1, -1))
    return next(filter(None, tries), None)


@dataclass
class Layers:
    """`count` layers of `period` ops from op `start`, and where the operands come from.

    A place is (op within the layer, result): `carried` lists the places that the next layer
    or the rest of the program reads, `inits` what the first layer has for them. `stacked`
    lists, for each parameter of the layer, the values of all layers. `sources` says for each
    (op, operand) that changes: ("carried", n) or ("param", n).
    """

    body: Body
    start: int
    period: int
    count: int
    carried: list[tuple[int, int]] = field(default_factory=list)
    inits: list[ir.Value] = field(default_factory=list)
    stacked: list[tuple[ir.Value, ...]] = field(default_factory=list)
    sources: dict[tuple[int, int], tuple[str, int]] = field(default_factory=dict)

    @staticmethod
    def of(body: Body, start: int, period: int, count: int) -> "Layers | None":
        """These layers, or None where they cannot be rolled."""
        layers = Layers(body, start, period, count)
        operands = ((i, j) for i in range(period) for j in range(len(body.reads[start + i])))
        fits = (
            all(layers._place_operand(i, j) for i, j in operands)
            and all(layers._counts_layers(i) for i in range(period))
            and layers._results_are_carried()
            and 0 < len(layers.carried) <= SLOTS
            and len(layers.stacked) > 0
        )
        return layers if fits else None

    @property
    def size(self) -> int:
        return self.period * self.count

    @property
    def stop(self) -> int:
        return self.start + self.size

    def op(self, i: int, layer: int = 0) -> ir.Operation:
        return self.body.ops[self.start + layer * self.period + i]

    def place(self, value: ir.Value, layer: int) -> tuple[int, int] | None:
        """The value's place in this layer, None when it is made elsewhere."""
        index = self.body.index.get(value, -1) - self.start - layer * self.period
        return (index, value.result_number) if 0 <= index < self.period else None

    def _place_operand(self, i: int, j: int) -> bool:
        """Finds the source of operand j of op i; False when the layers differ in it."""
        values = [self.body.reads[self.start + layer * self.period + i][j] for layer in range(self.count)]
        places = {self.place(value, layer) for layer, value in enumerate(values)}
        if places != {None}:
            return len(places) == 1
        if all(value == values[0] for value in values):
            return self.body.index.get(values[0], -1) < self.start
        if all(value in self.body.params for value in values):
            self.sources[i, j] = ("param", _find_or_add(self.stacked, tuple(values)))
            return True
        earlier = {self.place(value, layer) for layer, value in enumerate(values[1:])}
        if len(earlier) > 1 or earlier == {None} or self.body.index.get(values[0], -1) >= self.start:
            return False
        self.sources[i, j] = ("carried", self._carry(earlier.pop(), values[0]))
        return True

    def _carry(self, place: tuple[int, int], init: ir.Value) -> int:
        pairs = list(zip(self.carried, self.inits, strict=True))
        if (place, init) not in pairs:
            self.carried.append(place)
            self.inits.append(init)
        return pairs.index((place, init)) if (place, init) in pairs else len(pairs)

    def _counts_layers(self, i: int) -> bool:
        """The op's `layer`, if it has one, goes up by one a layer."""
        if "layer" not in self.op(i).attributes:
            return True
        numbers = [self.op(i, layer).attributes["layer"].value for layer in range(self.count)]
        return numbers == list(range(numbers[0], numbers[0] + self.count))

    def _results_are_carried(self) -> bool:
        """What is used behind the layers is made by the last one and carried."""
        inside = set(self.body.ops[self.start : self.stop])
        for layer in range(self.count):
            for i in range(self.period):
                for result in self.op(i, layer).results:
                    escapes = any(_ancestor(user, self.op(0)) not in inside for user in users(result))
                    if escapes and (layer < self.count - 1 or self.place(result, layer) not in self.carried):
                        return False
        return True


def _find_or_add(items: list, item) -> int:
    if item not in items:
        items.append(item)
    return items.index(item)


def _ancestor(op: ir.Operation, sibling: ir.Operation) -> ir.Operation:
    """The op itself, or the op in the sibling's block whose region holds it."""
    while op.block != sibling.block:
        op = op.parent.operation
    return op


# ---- rolling


def _roll(layers: Layers, params: dict[ir.Value, str]) -> None:
    """Moves the first layer's ops into a repeat and erases the others."""
    first, last = ([layers.op(i, layer) for i in range(layers.period)] for layer in (0, layers.count - 1))
    finals = [last[i].results[result] for i, result in layers.carried]

    def body(layer: ir.Value, carried: list[ir.Value], stacked: list[ir.Value]) -> list[ir.Value]:
        block = layer.owner
        new = {"carried": carried, "param": stacked}
        for i, op in enumerate(first):
            block.append(op)
            _name_all_layers(op, layers.op(i, 1))
            for j, old in enumerate(layers.body.reads[layers.start + i]):
                if (i, j) in layers.sources:
                    kind, number = layers.sources[i, j]
                    _set_read(op, j, old, new[kind][number])
        return [first[i].results[result] for i, result in layers.carried]

    second = layers.op(0, 1)
    with _common(first[0].location, second.location), ir.InsertionPoint(second):
        results = build.repeat(
            layers.inits,
            layers.count,
            [[params[value] for value in values] for values in layers.stacked],
            [values[0].type for values in layers.stacked],
            body,
        )
    for final, result in zip(finals, results, strict=True):
        final.replace_all_uses_with(result)
    for index in reversed(range(layers.start + layers.period, layers.stop)):
        layers.body.ops[index].erase()


def _set_read(op: ir.Operation, j: int, old: ir.Value, new: ir.Value) -> None:
    """Replaces operand j, or behind the operands the value that the op's regions use."""
    if j < len(op.operands):
        op.operands[j] = new
        return

    def visit(inner: ir.Operation) -> ir.WalkResult:
        inner.operation.replace_uses_of_with(old, new)
        return ir.WalkResult.ADVANCE

    op.walk(visit)


def _name_all_layers(op: ir.Operation, second: ir.Operation) -> None:
    """The op's location, and those in its regions, stand for the second layer's ops too."""
    op.location = _common(op.location, second.location)
    for region, other in zip(op.regions, second.regions, strict=True):
        for inner, twin in zip(region.blocks[0].operations, other.blocks[0].operations, strict=True):
            _name_all_layers(inner.operation, twin.operation)


def _common(a: ir.Location, b: ir.Location) -> ir.Location:
    """Where module paths count the layers, the number becomes a *."""
    if isinstance(a, ir.NameLoc) and isinstance(b, ir.NameLoc):
        parts, others = a.name_str.split("."), b.name_str.split(".")
        if len(parts) == len(others):
            name = ".".join(p if p == q else "*" for p, q in zip(parts, others, strict=True))
            return ir.Location.name(name, a.child_loc)
    if isinstance(a, ir.FusedLoc) and isinstance(b, ir.FusedLoc) and len(a.locations) == len(b.locations):
        return ir.Location.fused([_common(p, q) for p, q in zip(a.locations, b.locations, strict=True)])
    return a


# ---- around the search


def _hoist_shared(block: ir.Block, params: dict[ir.Value, str]) -> None:
    """Moves ops that depend on inputs alone to the front of the block, equal ones into one."""
    inputs = {value for value in block.arguments if value not in params}
    shared: dict[tuple, ir.Operation] = {}
    for op in [op.operation for op in block.operations][:-1]:
        if op.name in EFFECTS or len(op.regions) or not all(v in inputs for v in op.operands):
            continue
        same = shared.setdefault((_token(op), tuple(op.operands)), op)
        if same == op:
            inputs.update(op.results)
        else:
            replace(op, same.results)
    moved = set(shared.values())
    front = next(op.operation for op in block.operations if op.operation not in moved)
    for op in shared.values():
        op.move_before(front)


def _drop_unused_parameters(function: ir.Operation, params: dict[ir.Value, str]) -> None:
    """Removes the parameters that nothing uses any more from the arguments."""
    block = function.regions[0].blocks[0]
    dead = [i for i, value in enumerate(block.arguments) if value in params and not users(value)]
    if not dead:
        return
    for i in reversed(dead):
        block.erase_argument(i)
    attrs = [a for i, a in enumerate(function.opview.arg_attrs) if i not in set(dead)]
    results = ir.FunctionType(function.opview.type).results
    type_ = ir.FunctionType.get([value.type for value in block.arguments], results)
    function.attributes["function_type"] = ir.TypeAttr.get(type_)
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(attrs)
