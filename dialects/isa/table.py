"""The instruction set as Python objects: `ISA`, loaded from `isa.toml` and checked.

ISA["mx_mul"].fields        the fields of an instruction in encoding order
ISA.enums["dtype"]          the names of an enumeration; a name's index is its code
ISA.by_opcode[33].name      "mx_mul"
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources

KINDS = ("imm", "reg", "value", "tile")
ENGINES = ("seq", "load", "store", "matrix", "vector")
SPACES = ("spm", "acc", "hbm")
ACCESSES = ("r", "w", "rw")
ELEMENT = "element"
FORMULAS = (
    "issue",
    "scalar_load",
    "flag",
    "barrier",
    "transfer",
    "indirect",
    "stationary",
    "product",
    "vector",
)
MAX_TERMS = 4

DTYPE_BYTES = {"f32": 4, "bf16": 2, "i64": 8, "i32": 4, "i8": 1, "bool": 1}
_TILE_WALK = (("d0", "s0"), ("d1", "s1"), ("d2", "s2"))


class TableError(ValueError):
    """`isa.toml` contradicts itself."""


@dataclass(frozen=True)
class Field:
    """One field of an instruction. The keys are explained at the top of `isa.toml`."""

    name: str
    kind: str
    enum: str | None = None
    only: tuple[str, ...] = ()  # empty: every name of the enum
    f32: bool | str = False  # True, or the name of the imm that says so
    space: str | None = None
    access: str = ""
    elements: str | None = None
    walk: tuple[tuple[str, str], ...] = ()
    run: str | None = None
    dtype_of: str | None = None

    @property
    def on_chip(self) -> bool:
        """A tile, or an address in scratchpad or accumulator: a buffer to the compiler."""
        return self.kind == "tile" or self.space in ("spm", "acc")

    @property
    def reads(self) -> bool:
        return "r" in self.access

    @property
    def writes(self) -> bool:
        return "w" in self.access


@dataclass(frozen=True)
class Timing:
    """How the timing model computes the cycles of an instruction; the keys are explained in `isa.toml`."""

    formula: str
    work: tuple[str, ...] = ()
    passes: int = 1
    special: bool | tuple[str, ...] = ()


@dataclass(frozen=True)
class InstructionSpec:
    """One row of the table."""

    name: str
    opcode: int
    engine: str
    fields: tuple[Field, ...]
    semantics: str
    timing: Timing
    bound: str = ""

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}

    @property
    def is_engine(self) -> bool:
        """Runs on one of the four queues, not on the sequencer."""
        return self.engine != "seq"

    @property
    def buffers(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.on_chip)


@dataclass(frozen=True)
class InstructionSet:
    version: int
    registers: int
    flags: int
    enums: dict[str, tuple[str, ...]]
    instructions: tuple[InstructionSpec, ...]
    by_name: dict[str, InstructionSpec] = field(init=False, repr=False)
    by_opcode: dict[int, InstructionSpec] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {i.name: i for i in self.instructions})
        object.__setattr__(self, "by_opcode", {i.opcode: i for i in self.instructions})

    def __getitem__(self, name: str) -> InstructionSpec:
        return self.by_name[name]

    def __iter__(self) -> Iterator[InstructionSpec]:
        return iter(self.instructions)

    @property
    def engine_instructions(self) -> tuple[InstructionSpec, ...]:
        return tuple(i for i in self.instructions if i.is_engine)


def load(text: str) -> InstructionSet:
    """Parses and checks a table. Raises TableError."""
    data = tomllib.loads(text)
    enums = {name: tuple(values) for name, values in data["enums"].items()}
    rows = tuple(_row(row) for row in data["instruction"])
    isa = InstructionSet(data["version"], data["registers"], data["flags"], enums, rows)
    _check(isa)
    return isa


def _row(row: dict) -> InstructionSpec:
    fields = tuple(_field(f) for f in row["fields"])
    return InstructionSpec(**{**row, "fields": fields, "timing": _timing(row["timing"])})


def _field(row: dict) -> Field:
    tile = {"walk": _TILE_WALK, "run": ELEMENT} if row["kind"] == "tile" else {}
    row = {**tile, **row}
    row["only"] = tuple(row.get("only", ()))
    row["walk"] = tuple(tuple(step) for step in row.get("walk", ()))
    return Field(**row)


def _timing(row: dict) -> Timing:
    special = row.get("special", ())
    special = special if isinstance(special, bool) else tuple(special)
    return Timing(**{**row, "work": tuple(row.get("work", ())), "special": special})


def _check(isa: InstructionSet) -> None:
    _require(len(isa.by_name) == len(isa.instructions), "two instructions share a name")
    _require(len(isa.by_opcode) == len(isa.instructions), "two instructions share an opcode")
    _require(0 < isa.registers <= 256, "registers must be 1..256, a register number has 8 bits")
    for spec in isa:
        _require(0 < spec.opcode < 256, f"{spec.name}: opcode {spec.opcode} does not fit 8 bits")
        _require(spec.engine in ENGINES, f"{spec.name}: unknown engine {spec.engine}")
        _require(len(spec.by_name) == len(spec.fields), f"{spec.name}: two fields share a name")
        for f in spec.fields:
            _check_field(isa, spec, f)
        _check_timing(isa, spec)


def _check_timing(isa: InstructionSet, spec: InstructionSpec) -> None:
    timing = spec.timing
    _require(timing.formula in FORMULAS, f"{spec.name}: unknown timing formula {timing.formula}")
    _require(bool(timing.work) == (timing.formula == "vector"), f"{spec.name}: work is of vector timing")
    _require(set(timing.work) <= spec.by_name.keys(), f"{spec.name}: work names no field")
    _require(timing.passes > 0, f"{spec.name}: passes must be positive")
    if not isinstance(timing.special, bool) and timing.special:
        names = isa.enums.get(spec.by_name["op"].enum, ()) if "op" in spec.by_name else ()
        _require(set(timing.special) <= set(names), f"{spec.name}: special names no op")


def _check_field(isa: InstructionSet, spec: InstructionSpec, f: Field) -> None:
    at = f"{spec.name}.{f.name}"
    names = {g.name for g in spec.fields}
    steps = {"element", "s0", "s1", "s2"} if f.kind == "tile" else {"element"}
    _require(f.kind in KINDS, f"{at}: unknown kind {f.kind}")
    _require(f.enum is None or (f.kind == "imm" and f.enum in isa.enums), f"{at}: bad enum {f.enum}")
    _require(not f.only or set(f.only) <= set(isa.enums[f.enum or ""]), f"{at}: `only` names no enum value")
    _require(f.space is None or (f.kind == "value" and f.space in SPACES), f"{at}: bad space {f.space}")
    _require(
        bool(f.access) == (f.kind == "tile" or f.space is not None), f"{at}: access and memory go together"
    )
    _require(not f.access or f.access in ACCESSES, f"{at}: bad access {f.access}")
    _require(not isinstance(f.f32, str) or f.f32 in names, f"{at}: f32 names no field")
    _require(f.dtype_of is None or f.dtype_of in names, f"{at}: dtype_of names no field")
    _require(f.elements is None or f.elements in isa.enums["dtype"], f"{at}: bad elements {f.elements}")
    _require(all(n in names and s in names | steps for n, s in f.walk), f"{at}: walk names no field")
    _require(f.run is None or f.run in names | {ELEMENT}, f"{at}: run names no field")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise TableError(f"isa.toml: {message}")


ISA = load(resources.files(__package__).joinpath("isa.toml").read_text())
