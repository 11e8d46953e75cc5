"""Ops with regions: a fused vector kernel, a repeated block of layers."""

from collections.abc import Sequence

from opennpu.dialects.npu.dialect import (
    NpuOp,
    operand_slots,
    require,
    result_slots,
)
from torch_mlir import ir
from torch_mlir.dialects.ext import Pure, Region
from torch_mlir.ir import ArrayAttr, IntegerAttr

SLOTS = 8
"""The most results of a fused op and values carried by a repeat."""

FUSABLE = frozenset(
    f"npu.{name}"
    for name in [
        "constant",
        "extent",
        "iota",
        "unary",
        "binary",
        "select",
        "cast",
        "broadcast",
        "reduce",
        "softmax",
        "rms_norm",
        "layer_norm",
        "add_rms_norm",
        "silu_and_mul",
        "gelu_and_mul",
    ]
)
"""What the region of npu.fused may hold."""


class KvEffectsInside(ir.MemoryEffectsOpInterface):
    """The effects of the ops in the region."""

    @staticmethod
    def get_effects(op: ir.OpView, effects: ir.MemoryEffectInstancesList) -> None:
        names = {inner.operation.name for inner in op.regions[0].blocks[0]} if op.regions[0].blocks else set()
        if names & {"npu.paged_attention"}:
            effects.append(ir.MemoryEffect.Read)
        if names & {"npu.kv_write", "npu.rope_kv_write", "npu.capture"}:
            effects.append(ir.MemoryEffect.Write)


class YieldOp(NpuOp, name="yield", traits=[ir.IsTerminatorTrait, Pure]):
    """values…: ends a region with its results, up to 8 optional operands; `.values` lists those present."""

    __annotations__ = operand_slots("values", SLOTS)

    @property
    def values(self):
        return list(self.operands)


class FusedOp(NpuOp, name="fused", traits=[Pure]):
    """→ outs…: one vector kernel, a region of element-wise, cast, broadcast, row-reduce, softmax
    and norm ops ending in `npu.yield`. Made by fusion.

    The region has no arguments: it uses the values it needs from outside (`captured` lists
    them). The results are up to 8 optional ones; `.results` lists those present.
    """

    __annotations__.update(result_slots("outs", SLOTS))
    body: Region

    def check(self):
        require(len(self.results) >= 1, "has no results")

    @classmethod
    def verify_region_invariants(cls, op) -> bool:
        return check_region(cls, op, [], fused_problem)


def fused_problem(op) -> str | None:
    for inner in list(op.regions[0].blocks[0].operations)[:-1]:
        if inner.operation.name not in FUSABLE:
            return f"{inner.operation.name} cannot be part of a fused kernel"
    return None


class RepeatOp(NpuOp, name="repeat", traits=[KvEffectsInside]):
    """inits… → outs…: `count` layers, one after the other. Made by fusion.

    The region's arguments are (layer : i64, the carried values, a layer's parameters); it
    ends in `npu.yield` of the carried values. `params` is an array over the parameter
    arguments of arrays over the layers of parameter names. Values that are the same in all
    layers are used from outside. inits and outs are up to 8 optional ones; `.inits` and
    `.results` list those present.
    """

    __annotations__.update(operand_slots("inits", SLOTS))
    count: IntegerAttr
    params: ArrayAttr
    __annotations__.update(result_slots("outs", SLOTS))
    body: Region

    @property
    def inits(self):
        return list(self.operands)

    def check(self):
        count = self.count.value
        require(count >= 1, f"count {count} is not positive")
        require(
            [v.type for v in self.inits] == [v.type for v in self.results],
            "inits and results differ in type",
        )
        for i, names in enumerate(self.params):
            require(len(names) == count, f"parameter {i} has {len(names)} names for {count} layers")

    @classmethod
    def verify_region_invariants(cls, op) -> bool:
        layer = ir.IntegerType.get_signless(64)
        return check_region(cls, op, [layer, *[v.type for v in op.inits]], repeat_problem)


def repeat_problem(op) -> str | None:
    parameters = len(op.regions[0].blocks[0].arguments) - 1 - len(op.inits)
    if parameters != len(op.params):
        return f"region has {parameters} parameter arguments, params names {len(op.params)}"
    return None


def check_region(cls, op, leading: Sequence[ir.Type], problem) -> bool:
    """The region begins with arguments of these types and yields values of the results' types."""
    message = _region_problem(op, leading) or problem(op)
    if message:
        op.location.emit_error(f"'{cls.OPERATION_NAME}' op {message}")
    return message is None


def _region_problem(op, leading: Sequence[ir.Type]) -> str | None:
    if len(op.regions[0].blocks) != 1 or not len(op.regions[0].blocks[0].operations):
        return "region must be one block that ends in npu.yield"
    block = op.regions[0].blocks[0]
    terminator = list(block.operations)[-1]
    if [a.type for a in block.arguments][: len(leading)] != list(leading):
        return "region's arguments must begin with " + ", ".join(map(str, leading))
    if terminator.operation.name != "npu.yield":
        return "region must end in npu.yield"
    if [v.type for v in terminator.operands] != [r.type for r in op.results]:
        return "npu.yield's values differ from the results in type"
    return None


def captured(op: ir.Operation) -> list[ir.Value]:
    """The values from outside that the region uses, in order of first use."""
    found: list[ir.Value] = []
    inside: set[ir.Value] = set()

    def visit(inner: ir.Operation) -> ir.WalkResult:
        for region in inner.regions:
            for block in region.blocks:
                inside.update(block.arguments)
        found.extend(v for v in inner.operands if v not in inside and v not in found)
        inside.update(inner.results)
        return ir.WalkResult.ADVANCE

    for region in op.regions:
        for block in region.blocks:
            inside.update(block.arguments)
            for inner in block.operations:
                inner.operation.walk(visit, ir.WalkOrder.PRE_ORDER)
    return found
