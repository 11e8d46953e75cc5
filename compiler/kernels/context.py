"""KernelContext: what a kernel emitter `emit(ctx, op)` sees of the program being lowered.

    x = ctx.view(op.operands[0])              # where the operand lies
    y = ctx.output(op.results[0])             # room for the result, row-major unless `strided`
    with ctx.kernel(op, "vector", bytes=x.bytes) as b:
        ...                                   # tile ops by the TileBuilder b

An op that only looks at its operand differently defines a view and makes no kernel:
`ctx.define(op.results[0], views.transpose(x, perm))`. What needs its operand row-major
asks `movement.materialise(ctx, op, view)`; `movement.copy(ctx, op, dst, src)` is the kernel
that copies one view to another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.kernels.scalars import I64, Index
from opennpu.compiler.kernels.signature import Arguments
from opennpu.compiler.kernels.values import (
    ArgBase,
    Base,
    RolledWeightBase,
    RowBase,
    SlotBase,
    TableWeightBase,
    View,
    WeightBase,
    view_type,
)
from opennpu.compiler.kernels.views import transpose
from opennpu.compiler.kernels.weights import Packing, WeightSegment
from opennpu.compiler.kernels.workspace import Workspace
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.table import DTYPE_BYTES
from opennpu.dialects.locations import describe
from opennpu.dialects.symbols import Dim, Ranges, Sym, dim, num_elements
from opennpu.runtime.chip import Chip
from torch_mlir import ir

Emitter = Callable[["KernelContext", ir.OpView], None]


@dataclass(frozen=True)
class Param:
    """A parameter: its name, or in a rolled loop its name in every layer and the loop's index."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    layer: I64 | None = None


class KernelContext:
    """The state of lowering one module.

    `emitters` is the table of `npu` op name → emitter; `choices` between tilings.
    """

    def __init__(
        self, chip: Chip, ranges: Ranges, emitters: Mapping[str, "Emitter"], choices: Choices | None = None
    ):
        self.chip = chip
        self.choices = choices or Choices()
        self.ranges = ranges
        self.arguments = Arguments()
        self.emitters = emitters
        self.workspace = Workspace()
        self.weights = WeightSegment(chip)
        self.report: list[dict] = []
        self.layer: Index = 0
        self.repeats = 1
        self._argument_values: dict[str, ir.Value] = {}
        self._kernel_block: ir.Block | None = None  # of the kernel that is being made
        self._layer_offsets: dict[int, I64] = {}  # in it, by table
        self._views: dict[ir.Value, View] = {}
        self._params: dict[ir.Value, Param] = {}
        self._targets: dict[ir.Value, View] = {}
        self._scratch: list[View] = []

    def lower(self, block: ir.Block) -> None:
        """Emits the kernels of every op of a block but its terminator."""
        for op in list(block.operations)[:-1]:
            emit = self.emitters.get(op.operation.name)
            if emit is None:
                what, remedy = f"cannot lower '{op.operation.name}'", "no kernel is written for this op"
                raise CompileError(Problem(what, describe(op.location), remedy))
            with op.location:
                emit(self, op)
            self.finish(op)

    # ---- tensors

    def view(self, value: ir.Value) -> View:
        """Where a tensor lies; a parameter lies in the weight segment as it is."""
        if value not in self._views:
            param = self.param(value)
            base = self._weight_base(param, lambda n: self.weights.rows(n, param.dtype, param.shape))
            self._views[value] = View.contiguous(base, param.shape, param.dtype)
        return self._views[value]

    def output(self, result: ir.Value, strided: bool = False, order: Sequence[int] | None = None) -> View:
        """Room for a result: its program output or carried slot, else a slot of the workspace.

        Row-major, unless the kernel can write any strides: an output with others is then copied to.
        A slot has its dimensions in `order`, a permutation that is its own inverse.
        """
        target = self._targets.get(result)
        if target is None or not (strided or target.is_contiguous):
            shape, dtype = view_type(result)
            order = order or range(len(shape))
            slot = self.workspace.allocate(_bytes(shape, dtype))
            target = transpose(View.contiguous(slot, [shape[d] for d in order], dtype), order)
        self.define(result, target)
        return target

    def scratch(self, shape: Sequence[Dim], dtype: str) -> View:
        """Room for a temporary that lives until the current op is done."""
        view = self.reserve(shape, dtype)
        self._scratch.append(view)
        return view

    def reserve(self, shape: Sequence[Dim], dtype: str) -> View:
        """Room that lives until `free`."""
        slot = self.workspace.allocate(_bytes(shape, dtype))
        self.workspace.retain(slot)
        return View.contiguous(slot, shape, dtype)

    def free(self, view: View) -> None:
        """Gives back what `reserve` gave."""
        self.workspace.release(view.base)

    def define(self, result: ir.Value, view: View) -> None:
        """The result is another look at memory that already holds it."""
        self._views[result] = view
        if isinstance(view.base, SlotBase):
            self.workspace.retain(view.base, max(uses(result), 1))

    def aim(self, result: ir.Value, target: View) -> None:
        """Makes `output(result)` give `target`."""
        self._targets[result] = target

    def finish(self, op: ir.Operation) -> None:
        """Gives back what the op was the last to need."""
        for operand in _consumed(op):
            self.release(operand)
        for result in op.results:
            if uses(result) == 0:
                self.release(result)
        while self._scratch:
            self.free(self._scratch.pop())

    def retain(self, value: ir.Value) -> None:
        """Keeps a tensor's memory until a matching `release`."""
        if (slot := self._slot(value)) is not None:
            self.workspace.retain(slot)

    def release(self, value: ir.Value) -> None:
        if (slot := self._slot(value)) is not None:
            self.workspace.release(slot)

    def _slot(self, value: ir.Value) -> SlotBase | None:
        view = self._views.get(value)
        return view.base if view and isinstance(view.base, SlotBase) else None

    # ---- parameters

    def define_param(self, value: ir.Value, names: Sequence[str], layer: I64 | None = None) -> None:
        shape, dtype = view_type(value)
        self._params[value] = Param(tuple(names), shape, dtype, layer)

    def is_param(self, value: ir.Value) -> bool:
        return value in self._params

    def param(self, value: ir.Value) -> Param:
        return self._params[value]

    def packed(self, value: ir.Value, packing: Packing) -> Base:
        """The base of a parameter packed as matrix-unit tiles."""
        param = self.param(value)
        return self._weight_base(param, lambda n: self.weights.packed(n, param.dtype, param.shape, packing))

    def _weight_base(self, param: Param, offset_of: Callable[[str], int]) -> Base:
        offsets = [offset_of(name) for name in param.names]
        if param.layer is None:
            return WeightBase(offsets[0])
        steps = {after - before for before, after in pairwise(offsets)} or {0}
        if len(steps) == 1:
            return RolledWeightBase(offsets[0], steps.pop(), param.layer)
        return TableWeightBase(self.weights.table(offsets), param.layer)

    # ---- kernels

    @property
    def builder(self) -> TileBuilder:
        """For loops and scalars between kernels."""
        return TileBuilder(self._argument, self._address)

    @contextmanager
    def kernel(
        self, op: ir.Operation, name: str, flops: Dim = 0, bytes: Dim = 0, cut: Dim | None = None
    ) -> Iterator[TileBuilder]:
        """One `npu_tile.kernel`; flops, HBM bytes and the extent of rows that are cut go to the report."""
        source = op.operation.name
        attributes = {"kernel": ir.StringAttr.get(name), "source": ir.StringAttr.get(source)}
        with op.location:
            kernel = ir.Operation.create("npu_tile.kernel", attributes=attributes, regions=1)
            self._kernel_block, self._layer_offsets = kernel.regions[0].blocks.append(), {}
            with ir.InsertionPoint(self._kernel_block):
                yield self.builder
        cost = {"flops": str(self.repeats * Sym.of(flops)), "bytes": str(self.repeats * Sym.of(bytes))}
        entry = {"kernel": name, "source": source, "location": describe(op.location), **cost}
        self.report.append(entry if cut is None else {**entry, "cut": str(cut)})

    def load_arguments(self) -> None:
        """Makes the ops that read the launch arguments, for the whole function to use."""
        i64 = ir.IntegerType.get_signless(64)
        for index, key in enumerate(self.arguments.keys):
            attributes = {"index": ir.IntegerAttr.get(i64, index)}
            op = ir.Operation.create("npu_tile.arg", results=[i64], attributes=attributes)
            self._argument_values[key] = op.result

    def _argument(self, key: str) -> ir.Value:
        return self._argument_values[key]

    def _address(self, b: TileBuilder, view: View) -> Index:
        return self._base_address(b, view.base) + b.sym(view.offset) * view.itemsize

    def _base_address(self, b: TileBuilder, base: Base) -> Index:
        match base:
            case ArgBase(key):
                return b.arg(key)
            case SlotBase(offset):
                return b.arg("workspace") + b.sym(offset)
            case WeightBase(offset):
                return b.arg("weights") + offset
            case RolledWeightBase(offset, step, layer):
                return b.arg("weights") + offset + layer * step
            case TableWeightBase(table, layer):
                return b.arg("weights") + self._layer_offset(b, table, layer)
            case RowBase(key, nbytes, row):
                return b.arg(key) + b.sym(nbytes) * row

    def _layer_offset(self, b: TileBuilder, table: int, layer: I64) -> I64:
        """Read once, at the start of the kernel: the sequencer waits for each scalar load."""
        if table not in self._layer_offsets:
            with ir.InsertionPoint.at_block_begin(self._kernel_block):
                self._layer_offsets[table] = b.load_scalar(b.arg("weights") + table + layer * 8)
        return self._layer_offsets[table]


def _consumed(op: ir.Operation) -> list[ir.Value]:
    """The operands; of a fused op those of its region, where one use is one operand."""
    if op.operation.name != "npu.fused":
        return list(op.operands)
    return [value for inner in op.regions[0].blocks[0].operations for value in inner.operands]


def uses(value: ir.Value) -> int:
    return sum(1 for _ in value.uses)


def _bytes(shape: Sequence[Dim], dtype: str) -> Dim:
    return dim(Sym.of(num_elements(shape)) * DTYPE_BYTES[dtype])
