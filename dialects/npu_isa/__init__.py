"""Level 3, `npu_isa`: a flat list of operations, one per instruction (docs/architecture.md).

npu_isa.load()
program = npu_isa.program()                     # an op with an empty block
with ir.InsertionPoint(program.body.blocks[0]):
    npu_isa.build(Instruction("s_mov", {"rd": 2, "a": Affine(8)}))
"""

from opennpu.dialects.npu_isa.dialect import NpuIsa, build, instruction_of, load, program

__all__ = ["NpuIsa", "build", "instruction_of", "load", "program"]
