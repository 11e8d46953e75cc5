"""Writes `isa_gen.h` from `dialects/isa/isa.toml`: `generate.py ISA_TOML OUTPUT`.

The header holds the enums, one struct of resolved operands per instruction, and the table
that the loader decodes and validates by. CMake runs this at build time.
"""

import sys
import tomllib
from pathlib import Path

KINDS = {"imm": "int64_t", "reg": "int64_t", "value": "int64_t", "tile": "Tile"}
TILE_SLOTS = 6

PREAMBLE = """\
// Generated from dialects/isa/isa.toml by runtime/isa/generate.py; do not edit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace opennpu::isa {

inline constexpr uint32_t kVersion = @version@;
inline constexpr uint32_t kRegisters = @registers@;
inline constexpr uint32_t kFlags = @flags@;
inline constexpr uint32_t kMaxTerms = 4;

// An operand in scratchpad or accumulator: byte address, byte strides of d0, d1, d2.
struct Tile {
  int64_t space, dtype, addr, s0, s1, s2;
};

// Which queue runs an instruction; `Seq` is the sequencer itself.
enum class Unit : uint8_t { Load, Store, Matrix, Vector, Seq };
enum class Kind : uint8_t { Imm, Reg, Value, Tile };

// How the timing model computes the cycles of an instruction (the top of isa.toml). Bit i of
// `special`: operation i takes one of its passes through the special-function unit.
enum class Formula : uint8_t {
  Issue, ScalarLoad, Flag, Barrier, Transfer, Indirect, Stationary, Product, Vector
};
struct Timing {
  Formula formula;
  int64_t passes;
  uint64_t special;
};

// Values of Field::f32 other than a slot.
inline constexpr int16_t kNoFloat = -1, kFloat = -2;

// One field of an instruction. `enum_size` is 0 for a plain integer; bit i of `allowed` says
// that enumerator i may stand here. `f32`: the field is the bits of a float, always (kFloat) or
// when the field in that slot is not 0. A tile is expanded: space, dtype, addr, s0, s1, s2.
struct Field {
  const char* name;
  Kind kind;
  uint8_t enum_size;
  int16_t f32;
  uint64_t allowed;
};
"""

EPILOGUE = """\
// Resolved operands are read straight into these structs, one int64_t a slot.
#define X(NAME) static_assert(sizeof(NAME) == (NAME::kSlots ? 8 * NAME::kSlots : 1));
ONPU_INSTRUCTIONS(X)
#undef X

}  // namespace opennpu::isa
"""


def camel(name: str) -> str:
    """`v_softmax_step` → `VSoftmaxStep`, which also keeps clear of C++ keywords such as `and`."""
    return "".join(part.capitalize() for part in name.split("_"))


def enum_class(name: str, type_: str, values: dict[str, int]) -> str:
    body = ", ".join(f"{camel(key)} = {value}" for key, value in values.items())
    return f"enum class {name} : {type_} {{ {body} }};\n"


def name_array(name: str, values: list[str]) -> str:
    body = ", ".join(f'"{value}"' for value in values)
    return f"inline constexpr const char* k{camel(name)}Names[] = {{{body}}};\n"


def timing(row: dict, enums: dict[str, list[str]]) -> str:
    """The constants of the timing model, and the extents that its work is the product of."""
    spec = row["timing"]
    special = spec.get("special", [])
    if special is True:
        mask = (1 << 64) - 1
    else:
        ops = next((enums[f["enum"]] for f in row["fields"] if f["name"] == "op"), [])
        mask = sum(1 << ops.index(op) for op in special)
    formula = f"Formula::{camel(spec['formula'])}"
    out = f"  static constexpr Timing kTiming = {{{formula}, {spec.get('passes', 1)}, 0x{mask:x}}};\n"
    if work := ", ".join(spec.get("work", [])):
        out += f"  std::array<int64_t, {len(spec['work'])}> work() const {{ return {{{work}}}; }}\n"
    return out


def struct(row: dict, enums: dict[str, list[str]]) -> str:
    """The resolved operands of one instruction, and its constants."""
    members = "".join(f"  {KINDS[f['kind']]} {f['name']};\n" for f in row["fields"])
    count = slots(row["fields"])[""]
    return (
        f"struct {camel(row['name'])} {{\n"
        f"  static constexpr Opcode kOpcode = Opcode::{camel(row['name'])};\n"
        f"  static constexpr Unit kUnit = Unit::{camel(row['engine'])};\n"
        f'  static constexpr const char* kName = "{row["name"]}";\n'
        f"  static constexpr size_t kSlots = {count};\n{timing(row, enums)}{members}}};\n"
    )


def field_rows(field: dict, enums: dict[str, list[str]], slot_of: dict[str, int]) -> list[str]:
    """The table rows of a field; one for each member where it is a tile."""
    if field["kind"] == "tile":
        members = [("space", "Imm", "space"), ("dtype", "Imm", "dtype"), ("addr", "Value", None)]
        members += [(f"s{i}", "Imm", None) for i in range(3)]
        return [row(f"{field['name']}.{name}", kind, enums.get(enum)) for name, kind, enum in members]
    f32 = field.get("f32", False)
    f32 = {True: "kFloat", False: "kNoFloat"}[f32] if isinstance(f32, bool) else str(slot_of[f32])
    return [row(field["name"], camel(field["kind"]), enums.get(field.get("enum")), field.get("only"), f32)]


def row(
    name: str,
    kind: str,
    values: list[str] | None = None,
    only: list[str] | None = None,
    f32: str = "kNoFloat",
) -> str:
    values = values or []
    allowed = sum(1 << i for i, v in enumerate(values) if only is None or v in only)
    return f'{{"{name}", Kind::{kind}, {len(values)}, {f32}, 0x{allowed:x}}}'


def slots(fields: list[dict]) -> dict[str, int]:
    """The first slot of each field; "" gives their number."""
    at, out = 0, {}
    for field in fields:
        out[field["name"]] = at
        at += TILE_SLOTS if field["kind"] == "tile" else 1
    return {**out, "": at}


def table(rows: list[dict], enums: dict[str, list[str]]) -> str:
    out, entries = "", []
    for instruction in rows:
        name = camel(instruction["name"])
        slot_of = slots(instruction["fields"])
        fields = [r for f in instruction["fields"] for r in field_rows(f, enums, slot_of)]
        if fields:
            out += f"inline constexpr Field kFieldsOf{name}[] = {{\n    " + ",\n    ".join(fields) + "};\n"
        span = f"kFieldsOf{name}" if fields else "{}"
        entries.append(
            f'{{Opcode::{name}, "{instruction["name"]}", Unit::{camel(instruction["engine"])}, {span}}}'
        )
    out += (
        "\nstruct Instruction {\n  Opcode opcode;\n  const char* name;\n  Unit unit;\n"
        "  std::span<const Field> fields;  // tiles expanded, in the order of the encoding\n};\n"
    )
    return out + "inline constexpr Instruction kInstructions[] = {\n    " + ",\n    ".join(entries) + "};\n"


def x_macro(name: str, comment: str, rows: list[dict]) -> str:
    return f"// {comment}\n#define {name}(X) \\\n  " + " ".join(f"X({camel(r['name'])})" for r in rows) + "\n"


def generate(isa: dict) -> str:
    rows, enums = isa["instruction"], isa["enums"]
    out = PREAMBLE
    for key in ("version", "registers", "flags"):
        out = out.replace(f"@{key}@", str(isa[key]))
    out += "\n"
    for name, values in enums.items():
        out += enum_class(camel(name), "int64_t", {v: i for i, v in enumerate(values)})
        out += name_array(name, values)
    out += "\n" + enum_class("Opcode", "uint8_t", {r["name"]: r["opcode"] for r in rows}) + "\n"
    out += "\n".join(struct(r, enums) for r in rows) + "\n" + table(rows, enums) + "\n"
    out += x_macro("ONPU_INSTRUCTIONS", "Every instruction.", rows)
    out += x_macro(
        "ONPU_ENGINE_INSTRUCTIONS",
        "The instructions of the load, store, matrix and vector queues: what an engine implements.",
        [r for r in rows if r["engine"] != "seq"],
    )
    out += x_macro(
        "ONPU_SEQUENCER_INSTRUCTIONS", "What the sequencer runs.", [r for r in rows if r["engine"] == "seq"]
    )
    return out + EPILOGUE


def main() -> None:
    source, target = map(Path, sys.argv[1:])
    text = generate(tomllib.loads(source.read_text()))
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


if __name__ == "__main__":
    main()
