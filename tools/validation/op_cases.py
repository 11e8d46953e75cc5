"""Cases of every op of a compiled model, with its shapes, attributes and weights' layouts."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from opennpu.compiler.rewriting import attributes, blocks
from opennpu.dialects.npu.build import i64_attr
from opennpu.dialects.npu.structure import captured
from opennpu.dialects.symbols import Sym, dims_of
from opennpu.tools.validation.one_op import Case
from opennpu.tools.validation.op_bounds import label_of
from opennpu.tools.validation.op_values import values
from torch_mlir import ir

NOT_ALONE = frozenset({"npu.repeat", "npu.yield", "npu.capture"})
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
            if op.name in NOT_ALONE or op.name == "func.return":
                continue
            operands = captured(op) if op.name == "npu.fused" else list(op.operands)
            symbols = {name for value in operands for d in dims_of(value.type) for name in Sym.of(d).names}
            if not operands or not symbols <= SIZES[0].keys():
                continue
            for sizes in SIZES if symbols else SIZES[:1]:
                shapes = [(_extents(value, sizes), element(value)) for value in operands]
                key = (op.name, str({k: v for k, v in attributes(op).items() if k != "layer"}), str(shapes))
                if key not in seen:
                    seen.add(key)
                    own = {name: sizes[name] for name in sorted(symbols)}
                    yield _case_of(op, operands, shapes, own, weights, seed)


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
    return Case(label, first, build, lambda: types, filled, params, sizes, terms_of(op.name, shapes), "model")


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


def terms_of(name: str, shapes: Sequence[tuple[Sequence[int], str]]) -> int:
    """Of the sums in an op: the longest dimension of an operand that it can sum over."""
    if "attention" in name:
        return 128
    return max((shape[-1] for shape, _ in shapes if shape), default=1)
