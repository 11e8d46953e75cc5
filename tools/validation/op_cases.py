"""Cases of every op of a compiled model, with its shapes, attributes and weights' layouts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from opennpu.compiler.rewriting import attributes, blocks
from opennpu.dialects.npu.build import i64_attr
from opennpu.dialects.npu.structure import captured
from opennpu.dialects.symbols import Sym, dims_of
from opennpu.tools.validation.one_op import Case
from opennpu.tools.validation.op_bounds import label_of
from opennpu.tools.validation.op_counts import counts
from opennpu.tools.validation.op_values import values
from torch_mlir import ir

STRUCTURE = frozenset({"npu.repeat", "npu.yield", "npu.capture", "func.return"})
"""What computes nothing: the ops in a repeat have cases of their own."""
SIZES = ({"T": 1, "B": 1, "P": 4, "R": 1}, {"T": 37, "B": 3, "P": 4, "R": 5})
"""A launch that decodes a token of one sequence, and one that prefills three."""


def element(value: ir.Value) -> str:
    return str(ir.ShapedType(value.type).element_type)


def of_model(module: ir.Module, seed: int) -> Iterator[Case]:
    """A case for each kind and shape of op in a module at level `npu`, at each of SIZES."""
    seen = set()
    for block in blocks(module):
        weights = _weights(block)
        for op in block.operations:
            op = op.operation
            if op.name in STRUCTURE or why_not(op):
                continue
            operands, symbols = _operands(op), _symbols(op)
            for sizes in SIZES if symbols else SIZES[:1]:
                shapes = [(_extents(value, sizes), element(value)) for value in operands]
                key = (op.name, str({k: v for k, v in attributes(op).items() if k != "layer"}), str(shapes))
                if key not in seen:
                    seen.add(key)
                    own = {name: sizes[name] for name in sorted(symbols)}
                    yield _case_of(op, operands, shapes, own, weights, seed)


def left_out(module: ir.Module) -> list[dict]:
    """The ops of a module that have no case: `name`, `count`, `reason`."""
    ops = (op.operation for block in blocks(module) for op in block.operations)
    found = Counter((op.name, why_not(op)) for op in ops if op.name not in STRUCTURE and why_not(op))
    return [{"name": name, "count": count, "reason": reason} for (name, reason), count in found.items()]


def why_not(op: ir.Operation) -> str:
    """Why an op cannot be run alone; empty where it can."""
    if not _operands(op):
        return "it has no operands: it is in the cases of the ops that read it, where they are fused"
    if unknown := _symbols(op) - SIZES[0].keys():
        return f"its extents are of {', '.join(sorted(unknown))}, for which there are no sizes"
    return ""


def _operands(op: ir.Operation) -> list[ir.Value]:
    return captured(op) if op.name == "npu.fused" else list(op.operands)


def _symbols(op: ir.Operation) -> set[str]:
    return {name for value in _operands(op) for d in dims_of(value.type) for name in Sym.of(d).names}


def _weights(block: ir.Block) -> set[ir.Value]:
    """The values that are parameters: arguments of a repeat behind the carried ones, and of @main by name."""
    arguments, owner = list(block.arguments), block.owner.operation
    if owner.name == "npu.repeat":
        return set(arguments[1 + len(list(owner.operands)) :]) | _weights(owner.block)
    return {a for a, d in zip(arguments, owner.opview.arg_attrs, strict=True) if "npu.param" in d}


def _extents(value: ir.Value, sizes: Mapping[str, int]) -> list[int]:
    return [Sym.of(d).evaluate(dict(sizes)) for d in dims_of(value.type)]


def _case_of(op: ir.Operation, operands, shapes, sizes, weights, seed: int) -> Case:
    """The op itself, cloned with its operands."""

    def build(*new: ir.Value) -> Sequence[ir.Value]:
        return _clone(op, operands, new)

    label = label_of(op)
    first = element(op.results[0]) if len(op.results) else shapes[0][1]
    filled = values(op, shapes, torch.Generator().manual_seed(seed))
    params = frozenset(i for i, value in enumerate(operands) if value in weights)
    types = [value.type for value in operands]
    return Case(label, first, build, lambda: types, filled, params, sizes, counts(op, filled, sizes), "model")


def _clone(op: ir.Operation, operands: Sequence[ir.Value], new: Sequence[ir.Value]) -> Sequence[ir.Value]:
    clone = op.clone().operation
    for old, value in zip(operands, new, strict=True):

        def visit(inner: ir.Operation, old=old, value=value) -> ir.WalkResult:
            inner.operation.replace_uses_of_with(old, value)
            return ir.WalkResult.ADVANCE

        clone.walk(visit)
    if "layer" in clone.attributes:
        clone.attributes["layer"] = i64_attr(0)
    return list(clone.results)
