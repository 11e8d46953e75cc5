"""convert-tile-to-isa: kernels of tile operations to the flat text of a program.

One walk: scalars become affine operands (`compiler/scalar_code.py`), loops and ifs become
bracketed text, engine operations become instructions with folded addresses, a kernel ends in
a barrier and the program in halt. Then virtual registers become real (`compiler/registers.py`).
"""

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.registers import allocate
from opennpu.compiler.scalar_code import Code, Scalars
from opennpu.compiler.tile_ir import body_of, integer
from opennpu.dialects import npu_isa
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.encoding import Affine, TileOperand
from opennpu.dialects.isa.table import Field, InstructionSpec
from opennpu.dialects.locations import describe
from opennpu.dialects.npu_tile import dtype_of
from opennpu.dialects.npu_tile.effects import is_derived, operand_names, spec_of
from opennpu.dialects.npu_tile.types import space_of
from torch_mlir import ir


@register_pass("convert-tile-to-isa", "tile operations to chip instructions")
def convert(module: ir.Module) -> None:
    main = next((op for op in module.body.operations if op.operation.name == "func.func"), None)
    if main is None:
        raise CompileError("the module has no function @main of tile operations")
    converter = _Converter()
    converter.block(main.operation.regions[0].blocks[0])
    converter.code.emit("halt", {}, main.operation.location)
    code = allocate(converter.code)
    with ir.InsertionPoint(module.body):
        program = npu_isa.program(loc=main.operation.location)
    with ir.InsertionPoint(program.body.blocks[0]):
        for instruction, loc in code.instructions:
            npu_isa.build(instruction, loc)
    main.operation.erase()


class _Converter:
    """Walks structured code in order and emits instructions over virtual registers."""

    def __init__(self) -> None:
        self.code = Code()
        self.scalars = Scalars(self.code)

    def block(self, block: ir.Block) -> None:
        for op in block.operations:
            self.operation(op.operation)

    def operation(self, op: ir.Operation) -> None:
        spec = spec_of(op)
        if spec is not None:
            self._engine(spec, op)
        elif not self.scalars.lower(op):
            if op.name not in _STRUCTURE:
                raise CompileError(Problem(f"{op.name} has no form on the chip", describe(op.location)))
            _STRUCTURE[op.name](self, op)

    # ---- structure

    def _kernel(self, op: ir.Operation) -> None:
        self.block(body_of(op))
        self.code.emit("barrier", {}, op.location)

    def _loop(self, op: ir.Operation) -> None:
        lo, hi, step = (self.scalars[v] for v in op.operands)
        iv = self.code.new_register()
        self.code.emit("loop", {"rd": iv, "lo": lo, "hi": hi, "step": step}, op.location)
        body = body_of(op)
        self.scalars.define(body.arguments[0], Affine.reg(iv))
        self.block(body)
        self.code.emit("end_loop", {}, op.location)

    def _if(self, op: ir.Operation) -> None:
        """An else is a second `if` on the opposite."""
        cond = self.scalars[op.operands[0]]
        conditions = (cond, self.code.add(Affine(1), cond, -1, op.location))
        for region, condition in zip(op.regions, conditions, strict=True):
            for block in region.blocks:
                self.code.emit("if", {"cond": condition}, op.location)
                self.block(block)
                self.code.emit("end_if", {}, op.location)

    def _slot(self, op: ir.Operation) -> None:
        turn, slots = self.scalars[op.operands[0]], Affine(integer(op, "slots", None))
        self.scalars.define(op.results[0], self.code.alu("mod", turn, slots, op.location))

    def _flag(self, op: ir.Operation) -> None:
        queue = ir.StringAttr(op.attributes["queue"]).value
        fields = {"queue": queue, "flag": self.scalars[op.operands[0]]}
        self.code.emit(op.name.partition(".")[2], fields, op.location)

    def _nothing(self, op: ir.Operation) -> None:
        """Allocs are addresses in their users; terminators end what they stand in."""

    # ---- engine operations

    def _engine(self, spec: InstructionSpec, op: ir.Operation) -> None:
        operands = dict(zip(operand_names(spec), op.operands, strict=True))
        fields = {f.name: self._field(spec, f, op, operands) for f in spec.fields}
        self.code.emit(spec.name, fields, op.location)

    def _field(
        self, spec: InstructionSpec, f: Field, op: ir.Operation, operands: dict[str, ir.Value]
    ) -> object:
        if not f.on_chip:
            return self.scalars[operands[f.name]] if f.kind == "value" else _immediate(spec, f, op)
        address = self._address(f, op, operands)
        if f.kind != "tile":
            return address
        memref = operands[f.name].type
        strides = list(ir.DenseI64ArrayAttr(op.attributes[f"{f.name}_strides"]))
        return TileOperand(space_of(memref), dtype_of(memref), address, *strides)

    def _address(self, f: Field, op: ir.Operation, operands: dict[str, ir.Value]) -> Affine:
        alloc = operands[f.name].owner
        if "address" not in alloc.attributes:
            raise CompileError(
                Problem(
                    "a buffer has no address",
                    describe(alloc.location),
                    "run npu-tile-plan-memory before convert-tile-to-isa",
                )
            )
        base = Affine(integer(alloc, "address", None))
        return self.code.add(self.scalars[operands[f"{f.name}_offset"]], base, 1, op.location)


_STRUCTURE = {
    "npu_tile.kernel": _Converter._kernel,
    "scf.for": _Converter._loop,
    "scf.if": _Converter._if,
    "npu_tile.slot": _Converter._slot,
    "npu_tile.set_flag": _Converter._flag,
    "npu_tile.wait_flag": _Converter._flag,
    "npu_tile.alloc": _Converter._nothing,
    "scf.yield": _Converter._nothing,
    "func.return": _Converter._nothing,
}


def _immediate(spec: InstructionSpec, f: Field, op: ir.Operation) -> int | float | str:
    if is_derived(spec, f):
        return int(
            any(isinstance(op.attributes[g.name], ir.FloatAttr) for g in spec.fields if g.f32 == f.name)
        )
    attribute = op.attributes[f.name]
    if isinstance(attribute, ir.StringAttr | ir.FloatAttr):
        return attribute.value
    return ir.IntegerAttr(attribute).value
