"""Few neighbouring ops of an `npu` module as a module of their own, on the values that reach them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from opennpu.compiler.interpreters import npu as npu_interpreter
from opennpu.compiler.rewriting import attr, functions
from opennpu.compiler.tile_ir import walk
from opennpu.dialects.locations import describe
from opennpu.tools.bisection.levels import Values, text_of
from torch_mlir import ir
from torch_mlir.dialects import func

WIDEST = 16
"""Ops of the widest window that is tried before the whole module."""


@dataclass(frozen=True)
class Window:
    """A module that computes the last of its ops, and the values it is run on."""

    module: ir.Module
    values: Values
    ops: list[str]


def smallest(
    module: ir.Module, values: Values, differs: Callable[[ir.Module, Values], bool]
) -> Window | None:
    """The first of the narrowest windows that `differs`, None where not even a wide one does.

    Windows of 1, 2, 4, … ops that end with each op in turn: what stands before is replaced by the
    values that the module computes there.
    """
    values = values.fresh()
    with module.context, ir.Location.unknown():
        machine = npu_interpreter.trace(module, values.inputs, values.params, values.symbols, values.kv)
        known = replace(values, symbols=machine.symbols)
        ops = [op.operation for op in next(functions(module)).regions[0].blocks[0].operations][:-1]
        width = 1
        while width <= min(WIDEST, 2 * len(ops)):
            for window in _windows(module, ops, width, machine, known):
                text = text_of(window.module)
                if differs(window.module, window.values):
                    return replace(window, module=ir.Module.parse(text))
            width *= 2
    return None


def _windows(
    module: ir.Module, ops: list[ir.Operation], width: int, machine, values: Values
) -> Iterator[Window]:
    for end in range(len(ops)):
        chosen = _feeding(ops[max(0, end + 1 - width) : end + 1])
        if ops[end].results and (width == 1 or len(chosen) > width // 2):
            yield _cut(module, chosen, machine, values)


def _feeding(ops: list[ir.Operation]) -> list[ir.Operation]:
    """The last op, and those that it needs or that write pages."""
    needed, chosen = {ops[-1]}, []
    for op in reversed(ops):
        if op in needed or not op.results:
            chosen.append(op)
            needed.update(v.owner.operation for v in _operands(op) if not isinstance(v, ir.BlockArgument))
    return chosen[::-1]


def _operands(op: ir.Operation) -> list[ir.Value]:
    """Of the op and of what is in its regions, which may capture values."""
    inner = [x for region in op.regions for block in region.blocks for x in walk(block)]
    return [value for each in (op, *inner) for value in each.operands]


def _cut(module: ir.Module, ops: list[ir.Operation], machine, values: Values) -> Window:
    main = next(functions(module))
    names = {
        argument: attributes["npu.param"].value
        for argument, attributes in zip(
            main.regions[0].blocks[0].arguments, main.opview.arg_attrs, strict=True
        )
        if "npu.param" in attributes
    }
    outside = _outside(ops)
    inputs = {f"v{i}": machine.values[v] for i, v in enumerate(outside) if v not in names}
    kinds = [("npu.param", names[v]) if v in names else ("npu.input", f"v{i}") for i, v in enumerate(outside)]
    attributes = [{kind: ir.StringAttr.get(name)} for kind, name in kinds]
    made = _module(module, ops, outside, attributes)
    layers = {name for op in ops if op.name == "npu.repeat" for row in attr(op, "params") for name in row}
    used = {names[v] for v in outside if v in names} | layers
    params = {name: x for name, x in values.params.items() if name in used}
    described = [" of ".join(filter(None, (op.name, describe(op.location)))) for op in ops]
    return Window(made, replace(values, inputs=inputs, params=params), described)


def _outside(ops: list[ir.Operation]) -> list[ir.Value]:
    """The values that the ops take from elsewhere, each once."""
    inside = {op for op in ops} | {x for op in ops for r in op.regions for b in r.blocks for x in walk(b)}
    found: list[ir.Value] = []
    for value in (v for op in ops for v in _operands(op)):
        owner = value.owner
        holder = owner.owner.operation if isinstance(owner, ir.Block) else owner.operation
        if holder not in inside and value not in found:
            found.append(value)
    return found


def _module(
    module: ir.Module, ops: list[ir.Operation], outside: list[ir.Value], attributes: list
) -> ir.Module:
    made = ir.Module.create()
    if "npu.symbols" in module.operation.attributes:
        made.operation.attributes["npu.symbols"] = module.operation.attributes["npu.symbols"]
    with ir.InsertionPoint(made.body):
        main = func.FuncOp("main", ([v.type for v in outside], [r.type for r in ops[-1].results]))
    main.operation.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(a) for a in attributes])
    block = main.add_entry_block()
    values = dict(zip(outside, block.arguments, strict=True))
    with ir.InsertionPoint(block):
        for op in ops:
            copy = op.clone().operation
            values.update(zip(op.results, copy.results, strict=True))
            inner = [x for region in copy.regions for b in region.blocks for x in walk(b)]
            for each in (copy, *inner):
                for i, operand in enumerate(each.operands):
                    if operand in values:
                        each.operands[i] = values[operand]
        func.ReturnOp([values[r] for r in ops[-1].results])
    made.operation.verify()
    return made
