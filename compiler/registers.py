"""Register allocation: linear scan over structured code (Poletto and Sarkar 1999).

Code over virtual registers, each written once, becomes code over the chip's. A register lives
from its definition to its last use; a use inside a loop that the definition stands outside of
keeps it alive to the end of that loop, since the next iteration reads it again.
"""

import heapq
from collections.abc import Iterator
from dataclasses import replace

from opennpu.compiler.scalar_code import FIRST_FREE, Code
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.locations import describe

_PURE = {"s_mov", "s_alu", "s_arg", "s_ld"}


def allocate(code: Code) -> Code:
    """The same code over real registers, without computations that nothing uses."""
    code = _without_dead(code)
    ends = _live_ranges(code)
    real = dict.fromkeys(range(FIRST_FREE), 0) | {i: i for i in range(FIRST_FREE)}
    free = list(range(FIRST_FREE, ISA.registers))
    active: list[tuple[int, int]] = []  # (end, real register)
    for at, (instruction, loc) in enumerate(code.instructions):
        while active and active[0][0] < at:
            heapq.heappush(free, heapq.heappop(active)[1])
        if (rd := _written(instruction)) is not None:
            if not free:
                raise CompileError(
                    Problem(
                        f"more than {ISA.registers} scalars are alive at once",
                        describe(loc),
                        "split the kernel: fuse fewer operations, or use fewer dynamic extents",
                    )
                )
            real[rd] = heapq.heappop(free)
            heapq.heappush(active, (ends[rd], real[rd]))
    renamed = [(_rename(instruction, real), loc) for instruction, loc in code.instructions]
    return Code(renamed, ISA.registers)


def _without_dead(code: Code) -> Code:
    used: set[int] = set()
    kept = []
    for instruction, loc in reversed(code.instructions):
        if instruction.name in _PURE and _written(instruction) not in used:
            continue
        used.update(_read(instruction))
        kept.append((instruction, loc))
    return Code(kept[::-1], code.registers)


def _live_ranges(code: Code) -> dict[int, int]:
    """The position up to which each virtual register is needed."""
    end_of_loop = _loop_ends(code)
    loops_at: dict[int, tuple[int, ...]] = {}  # of a register: the loops around its definition
    ends: dict[int, int] = {}
    around: list[int] = []
    nesting: list[bool] = []
    for at, (instruction, _) in enumerate(code.instructions):
        for reg in _read(instruction):
            if reg >= FIRST_FREE:
                outside = len(loops_at[reg])
                entered = around[outside] if len(around) > outside else None
                ends[reg] = max(ends[reg], at if entered is None else end_of_loop[entered])
        rd = _written(instruction)
        if rd is not None:
            loops_at[rd] = tuple(around)
            ends[rd] = end_of_loop.get(at, at)
        if instruction.name in ("loop", "if"):
            nesting.append(instruction.name == "loop")
            if nesting[-1]:
                around.append(at)
        elif instruction.name in ("end_loop", "end_if") and nesting.pop():
            around.pop()
    return ends


def _loop_ends(code: Code) -> dict[int, int]:
    """Position of every loop → position of its end_loop."""
    ends, stack = {}, []
    for at, (instruction, _) in enumerate(code.instructions):
        if instruction.name == "loop":
            stack.append(at)
        elif instruction.name == "end_loop":
            ends[stack.pop()] = at
    return ends


def _written(instruction: Instruction) -> int | None:
    return instruction.fields.get("rd")


def _read(instruction: Instruction) -> Iterator[int]:
    for value in instruction.fields.values():
        value = value.addr if isinstance(value, TileOperand) else value
        if isinstance(value, Affine):
            yield from (reg for reg, _ in value.terms)


def _rename(instruction: Instruction, real: dict[int, int]) -> Instruction:
    def field(name: str, value: object) -> object:
        match value:
            case Affine(imm, terms):
                return Affine(imm, tuple((real[reg], coef) for reg, coef in terms))
            case TileOperand():
                return replace(value, addr=field(name, value.addr))
        return real[value] if name == "rd" else value

    fields = {name: field(name, value) for name, value in instruction.fields.items()}
    return Instruction(instruction.name, fields)
