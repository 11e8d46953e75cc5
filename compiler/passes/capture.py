"""npu-capture: the outputs of layers, or of all ops, become outputs of the program, for debugging.

It stands right before npu-roll-layers, where every op has its final form and still names the modules
of one layer: `model.layers.3.mlp.down_proj`. Nothing else changes, so the program computes the same,
bit for bit.

- An op's result r is known as `path#r`, where the path is the last of the modules that the op stands
  for of which no later op is a part: r is then a result of that module.
- A *layer* is what has the same first number in its paths. It ends with the last op that names it.
  What it hands on are the results of its ops that later ops read.
- The output is named by the path with a `*` for the number, `model.layers.*.mlp.down_proj#0`, and has
  a row for each layer; a path without a number has one row.
- `replace=3` makes everything behind layer 3 read inputs `replace:path#r` in the place of what the
  layer hands on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import functions
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.npu import build
from torch_mlir import ir

SELECT = ("layers", "ops")
INPUT = "replace:"


@dataclass(frozen=True)
class Captured:
    """Result `result` of a module, and the layer that hands it on; None where none does."""

    path: str
    result: int
    layer: int | None

    @property
    def name(self) -> str:
        return f"{self.path}#{self.result}"

    @property
    def output(self) -> str:
        """The program's output that it goes to."""
        return f"{_pattern(self.path)}#{self.result}"

    @property
    def row(self) -> int:
        return _layer_of(self.path) or 0


@register_pass("npu-capture", "debugging: results of layers or ops → outputs of the program")
def run(module: ir.Module, select: str = "layers", replace: int | None = None) -> list[Captured]:
    """Inserts the captures and returns them, in program order. `select`: "layers" or "ops".

    CompileError for a module without layers, or without the one to replace.
    """
    if select not in SELECT:
        raise CompileError(f"npu-capture: select is {' or '.join(SELECT)}, not '{select}'")
    function = next(functions(module))
    body = _Body(function)
    boundaries = body.boundaries()
    if not boundaries:
        raise CompileError(Problem("npu-capture: no op is of a layer", remedy="module paths have no numbers"))
    handed_on = {value: layer for layer, values in boundaries.items() for value in values}
    chosen = [value for op in body.ops for value in op.results if select == "ops" or value in handed_on]
    found = {value: body.name(value, handed_on.get(value)) for value in chosen}
    for value, captured in found.items():
        if captured:
            _insert(value, captured)
    if replace is not None:
        if replace not in boundaries:
            known = f"{min(boundaries)} to {max(boundaries)}"
            raise CompileError(f"npu-capture: there is no layer {replace} to replace; layers are {known}")
        values = [value for value in boundaries[replace] if found[value]]
        _replace(function, values, [found[value].name for value in values], body.ops[body.ends[replace]])
    return [captured for captured in found.values() if captured]


class _Body:
    """The ops of a function, in order, and which module and layer each is of."""

    def __init__(self, function: ir.Operation):
        self.ops = [op.operation for op in function.regions[0].blocks[0].operations][:-1]
        self.index = {result: i for i, op in enumerate(self.ops) for result in op.results}
        self.paths = [list(_paths(op.location)) for op in self.ops]
        self.last = {path: i for i, paths in enumerate(self.paths) for path in paths}
        numbers = [{_layer_of(path) for path in paths} - {None} for paths in self.paths]
        self.first = next((i for i, layers in enumerate(numbers) if layers), len(self.ops))
        self.ends = {layer: i for i, layers in enumerate(numbers) for layer in layers}
        """Layer → the last op that names it."""

    def name(self, value: ir.OpResult, layer: int | None) -> Captured | None:
        """None for a result within a module."""
        i = self.index[value]
        path = next((path for path in reversed(self.paths[i]) if self.last[path] == i), None)
        return Captured(path, value.result_number, layer) if path else None

    def boundaries(self) -> dict[int, list[ir.OpResult]]:
        """Layer → what it hands on."""
        start, found = self.first, {}
        for layer, end in sorted(self.ends.items(), key=lambda item: item[1]):
            results = [result for op in self.ops[start : end + 1] for result in op.results]
            found[layer] = [result for result in results if any(self._read_behind(result, end))]
            start = end + 1
        return found

    def _read_behind(self, value: ir.OpResult, end: int) -> Iterable[bool]:
        behind = self.ops[end + 1] if end + 1 < len(self.ops) else None
        for use in value.uses:
            user = use.owner.operation
            while user.block != self.ops[end].block:
                user = user.parent
            yield behind is None or not user.is_before_in_block(behind)


def _insert(value: ir.OpResult, captured: Captured) -> None:
    op = value.owner.operation
    with ir.InsertionPoint.after(op), op.location:
        build.capture(value, captured.output, captured.row)


def _replace(
    function: ir.Operation, values: Sequence[ir.OpResult], names: Sequence[str], end: ir.Operation
) -> None:
    """What stands behind `end` reads new inputs of @main in the place of the values."""
    block = function.regions[0].blocks[0]
    behind = list(block.operations)[[op.operation for op in block.operations].index(end) + 1 :]
    attrs = list(ir.ArrayAttr(function.attributes["arg_attrs"]))
    for value, name in zip(values, names, strict=True):
        argument = block.add_argument(value.type, value.owner.location)
        attrs.append(ir.DictAttr.get({"npu.input": ir.StringAttr.get(INPUT + name)}))
        for op in behind:
            _set_operands(op.operation, value, argument)
    results = ir.FunctionType(function.opview.type).results
    type_ = ir.FunctionType.get([argument.type for argument in block.arguments], results)
    function.attributes["function_type"] = ir.TypeAttr.get(type_)
    function.attributes["arg_attrs"] = ir.ArrayAttr.get(attrs)


def _set_operands(op: ir.Operation, old: ir.Value, new: ir.Value) -> None:
    """Of the op and of all in its regions, but of captures: they show what the layer made."""

    def visit(inner: ir.Operation) -> ir.WalkResult:
        if inner.operation.name != "npu.capture":
            inner.operation.replace_uses_of_with(old, new)
        return ir.WalkResult.ADVANCE

    op.walk(visit)


def _paths(location: ir.Location) -> Iterable[str]:
    """The module paths of an op, each once, in order."""
    if isinstance(location, ir.NameLoc):
        yield location.name_str
    elif isinstance(location, ir.FusedLoc):
        yield from dict.fromkeys(path for child in location.locations for path in _paths(child))


def _layer_of(path: str) -> int | None:
    """The first number in a module path."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def _pattern(path: str) -> str:
    """The path with a * in the place of its layer."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return path if at is None else ".".join([*parts[:at], "*", *parts[at + 1 :]])
