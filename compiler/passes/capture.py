"""npu-capture: the outputs of layers, or of all ops, become outputs of the program, for debugging.

It stands right before npu-roll-layers, where every op has its final form and still names the modules
of one layer: `model.layers.3.mlp.down_proj`. Nothing else changes, so the program computes the same,
bit for bit.

- An op's result r is known as `path#r`, where the path is the last of the modules that the op stands
  for of which no later op is a part: r is then a result of that module. A result that has no such name
  is not captured, and is told with the reason.
- A *layer* is what has the same first number in its paths. It ends with the last op that names it.
  What it hands on are the results of its ops that later ops read. It is called by its number, or, where
  modules are numbered in several places, by its path: `visual.blocks.3`. With layers, integers that
  modules return are captured too: choices, as of experts, which all else depends on.
- The output is named by the path with a `*` for the number, `model.layers.*.mlp.down_proj#0`, and has
  a row for each layer; a path without a number has one row. A result of another type than those before
  it has an output of its own, named by its whole path.
- `replace=3` makes everything behind layer 3 read inputs `replace:path#r` in the place of what the
  layer hands on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import functions
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.npu import build
from torch_mlir import ir

SELECT = ("layers", "ops")
INPUT = "replace:"


@dataclass(frozen=True)
class Captured:
    """Result `name` of a module, and the layer that hands it on, None where none does. It goes to row `row`
    of the program's output `output`."""

    name: str
    layer: str | None
    output: str
    row: int


@dataclass(frozen=True)
class Skipped:
    """What is not captured, the layer that hands it on, and why."""

    name: str
    layer: str | None
    reason: str


@dataclass
class Captures:
    """All results that were asked for, in program order."""

    values: list[Captured] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@register_pass("npu-capture", "debugging: results of layers or ops → outputs of the program")
def run(module: ir.Module, select: str = "layers", replace: int | str | None = None) -> Captures:
    """Inserts the captures and tells of them. `select`: "layers" or "ops"; `replace`: a layer's name.

    CompileError for a module without layers, or without the one to replace, or where a value that it hands
    on has no name.
    """
    if select not in SELECT:
        raise CompileError(f"npu-capture: select is {' or '.join(SELECT)}, not '{select}'")
    function = next(functions(module))
    body = _Body(function)
    boundaries = body.boundaries()
    if not boundaries:
        raise CompileError(Problem("npu-capture: no op is of a layer", remedy="module paths have no numbers"))
    captures = _insert_all(body, boundaries, select)
    if replace is not None:
        _replace_layer(function, body, boundaries, str(replace))
    return captures


def _insert_all(body: "_Body", boundaries: dict[str, list[ir.OpResult]], select: str) -> Captures:
    handed_on = {value: layer for layer, values in boundaries.items() for value in values}
    captures, types = Captures(), {}
    for op in body.ops:
        if select == "ops" and not op.results:
            reason = "it has no result: what it writes to pages shows in the attention that reads them"
            captures.skipped.append(Skipped(_described(op), None, reason))
        for value in op.results:
            layer = handed_on.get(value)
            if select == "layers" and layer is None and not _is_choice(body, value):
                continue
            if place := body.name(value):
                path, number = place
                name, pattern = f"{path}#{number}", f"{_pattern(path)}#{number}"
                own = types.setdefault(pattern, value.type) != value.type
                row = 0 if own else _number(path)
                captures.values.append(Captured(name, layer, name if own else pattern, row))
                _insert(value, captures.values[-1])
            else:
                which = f"{_described(op)}, result {value.result_number}"
                captures.skipped.append(Skipped(which, layer, body.why_not(value)))
    return captures


def _replace_layer(
    function: ir.Operation, body: "_Body", boundaries: dict[str, list[ir.OpResult]], layer: str
) -> None:
    if layer not in boundaries:
        known = list(boundaries)
        raise CompileError(
            f"npu-capture: there is no layer {layer} to replace; layers are {known[0]} to {known[-1]}"
        )
    values = boundaries[layer]
    places = [body.name(value) for value in values]
    if None in places:
        op = values[places.index(None)].owner.operation
        what = f"npu-capture: layer {layer} cannot be replaced: a value that it hands on has no name"
        raise CompileError(Problem(what, _described(op), "replace another layer"))
    names = [f"{path}#{number}" for path, number in places]
    _replace(function, values, names, body.ops[body.ends[layer]])


class _Body:
    """The ops of a function, in order, and which module and layer each is of."""

    def __init__(self, function: ir.Operation):
        self.ops = [op.operation for op in function.regions[0].blocks[0].operations][:-1]
        self.index = {result: i for i, op in enumerate(self.ops) for result in op.results}
        self.paths = [list(_paths(op.location)) for op in self.ops]
        self.last = {path: i for i, paths in enumerate(self.paths) for path in paths}
        layers = [[_layer_of(path) for path in paths if _numbered(path) is not None] for paths in self.paths]
        self.first = next((i for i, names in enumerate(layers) if names), len(self.ops))
        one_stack = len({_pattern(name) for names in layers for name in names}) == 1
        self.ends = {
            name.rpartition(".")[2] if one_stack else name: i
            for i, names in enumerate(layers)
            for name in names
        }
        """Layer → the last op that names it."""

    def name(self, value: ir.OpResult) -> tuple[str, int] | None:
        """The module that returns it, and which of its results it is; None for a result within a module."""
        i, op = self.index[value], value.owner.operation
        if op.name != "npu.fused":
            path = self._returning(i, self.paths[i])
            return path and (path, value.result_number)
        made = list(list(op.regions[0].blocks[0].operations)[-1].operands)
        paths = [self._returning(i, list(_paths(inner.owner.operation.location))) for inner in made]
        path = paths[value.result_number]
        return path and (path, paths[: value.result_number].count(path))

    def _returning(self, i: int, paths: Sequence[str]) -> str | None:
        """The innermost of the paths that no op behind the i-th is of."""
        return next((path for path in reversed(paths) if self.last[path] == i), None)

    def why_not(self, value: ir.OpResult) -> str:
        """Why it has no name."""
        if not self.paths[self.index[value]]:
            return "its op is of no module"
        return "it is within a module: a later op makes what that returns"

    def boundaries(self) -> dict[str, list[ir.OpResult]]:
        """Layer → what it hands on, in program order."""
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


def _is_choice(body: _Body, value: ir.OpResult) -> bool:
    return isinstance(ir.ShapedType(value.type).element_type, ir.IntegerType) and body.name(value) is not None


def _described(op: ir.Operation) -> str:
    return f"{op.name} of {describe(op.location) or 'no module'}"


def _numbered(path: str) -> int | None:
    """The place of the first number in a module path."""
    return next((i for i, part in enumerate(path.split(".")) if part.isdigit()), None)


def _layer_of(path: str) -> str:
    """The path up to its number."""
    return ".".join(path.split(".")[: _numbered(path) + 1])


def _number(path: str) -> int:
    at = _numbered(path)
    return 0 if at is None else int(path.split(".")[at])


def _pattern(path: str) -> str:
    """The path with a * in the place of its number."""
    parts, at = path.split("."), _numbered(path)
    return path if at is None else ".".join([*parts[:at], "*", *parts[at + 1 :]])
