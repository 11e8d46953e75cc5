"""Prints docs/isa.md from the instruction table: `python -m opennpu.dialects.isa.docs > docs/isa.md`."""

import sys
from collections.abc import Iterator
from importlib import resources

from opennpu.dialects.isa.table import ENGINES, ISA, Field, InstructionSpec, Timing

_TITLES = {
    "seq": "Sequencer",
    "load": "Load queue",
    "store": "Store queue",
    "matrix": "Matrix queue",
    "vector": "Vector queue",
}


def page() -> str:
    """The whole page."""
    return "\n".join([*_introduction(), *_enums(), *(line for e in ENGINES for line in _engine(e))]) + "\n"


def _introduction() -> Iterator[str]:
    yield "# Instruction set"
    yield ""
    yield f"Version {ISA.version}. {len(ISA.instructions)} instructions, {ISA.registers} registers,"
    yield f"{ISA.flags} event flags a core. Printed from `dialects/isa/isa.toml` by"
    yield "`python -m opennpu.dialects.isa.docs`; do not edit this page."
    yield ""
    yield "```text"
    yield from _header()
    yield "```"
    yield ""


def _header() -> Iterator[str]:
    """The comment at the top of the table: encoding and the meaning of its keys."""
    for line in resources.files(__package__).joinpath("isa.toml").read_text().splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").removeprefix(" ").rstrip()


def _enums() -> Iterator[str]:
    yield "## Enumerations"
    yield ""
    yield "A name's code is its place in the list, from 0."
    yield ""
    for name, values in ISA.enums.items():
        yield f"- `{name}`: {', '.join(values)}"
    yield ""


def _engine(engine: str) -> Iterator[str]:
    yield f"## {_TITLES[engine]}"
    yield ""
    for spec in ISA:
        if spec.engine == engine:
            yield from _instruction(spec)


def _instruction(spec: InstructionSpec) -> Iterator[str]:
    yield f"### `{spec.name}`"
    yield ""
    yield f"Opcode {spec.opcode}. {spec.semantics}"
    yield ""
    if spec.bound:
        yield f"*Error bound:* {spec.bound}"
        yield ""
    yield f"*Timing:* {_timing(spec.timing)}"
    yield ""
    if spec.fields:
        yield "| field | kind | |"
        yield "|---|---|---|"
        for f in spec.fields:
            yield f"| `{f.name}` | {f.kind} | {_notes(f)} |"
        yield ""


def _timing(timing: Timing) -> str:
    notes = [timing.formula]
    if timing.work:
        notes.append("work " + " × ".join(timing.work))
    if timing.passes > 1:
        notes.append(f"{timing.passes} passes")
    if timing.special:
        names = "always" if timing.special is True else ", ".join(timing.special)
        notes.append(f"special: {names}")
    return "; ".join(notes)


def _notes(f: Field) -> str:
    notes = []
    if f.enum:
        notes.append(f"{f.enum}: {', '.join(f.only)}" if f.only else f.enum)
    if f.f32:
        notes.append("bits of an f32" + (f" where {f.f32} ≠ 0" if isinstance(f.f32, str) else ""))
    if f.access:
        notes.append(f"{f.space or 'spm or acc'}, {_ACCESS[f.access]}")
    if f.elements:
        notes.append(f.elements)
    if f.walk:
        notes.append("walks " + ", ".join(f"{count} × {stride}" for count, stride in f.walk))
    if f.run:
        notes.append(f"runs of {'one element' if f.run == 'element' else f.run}")
    if f.dtype_of:
        notes.append(f"of what lies at {f.dtype_of}")
    return "; ".join(notes)


_ACCESS = {"r": "read", "w": "written", "rw": "read and written"}

if __name__ == "__main__":
    sys.stdout.write(page())
