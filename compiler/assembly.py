"""A program image as text: what `npu-dis` prints and `npu-as` reads.

    .chip 0x1f2e3d4c5b6a7988        the fingerprint of the chip
    .arg scalar                     one line a launch argument: scalar, read, write
    .loc "model.layers.0.mlp"       one line a source location, numbered from 0

    loop rd=r2, lo=0, hi=r5, step=1 @0
      dma_load dst=spm[0x100 + 64*r2], … @0
    end_loop @0

`@n` is the instruction's location; `;` starts a comment. Text, arguments and locations
survive image → text → image bit for bit.
"""

import json
import re

from opennpu.compiler.image import ArgKind, Image
from opennpu.dialects.isa.encoding import EncodingError, Instruction, decode, encode, encode_one
from opennpu.dialects.isa.syntax import SyntaxProblem, parse_instruction, print_instruction

_LINE = re.compile(r"(.*?)(?:\s+@(\d+))?")
_OPENS = {"loop", "if"}
_CLOSES = {"end_loop", "end_if"}


class AssemblyError(ValueError):
    """The text is no program; the message begins with the line number."""


def print_image(image: Image) -> str:
    """The text of an image. Raises EncodingError where the words are no instructions."""
    lines = [f".chip {image.fingerprint:#018x}"]
    lines += [f".arg {kind.name.lower()}" for kind in image.arg_kinds]
    lines += [f".loc {json.dumps(loc, ensure_ascii=False)}" for loc in image.locs]
    lines.append("")
    depth, last = 0, None
    for instruction in decode(image.text):
        depth -= instruction.name in _CLOSES
        if instruction.loc != last and instruction.loc < len(image.locs):
            lines.append(f"; {_one_line(image.locs[instruction.loc])}")
        last = instruction.loc
        lines.append(f"{'  ' * max(depth, 0)}{print_instruction(instruction)} @{instruction.loc}")
        depth += instruction.name in _OPENS
    return "\n".join(lines) + "\n"


def parse_assembly(text: str) -> Image:
    """The image of a text. Raises AssemblyError."""
    chip, kinds, locs, instructions = 0, [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        try:
            if line.startswith(".chip "):
                chip = int(line[6:], 0)
            elif line.startswith(".arg "):
                kinds.append(ArgKind[line[5:].strip().upper()])
            elif line.startswith(".loc "):
                locs.append(json.loads(line[5:]))
            else:
                instructions.append(_parse_line(line))
        except (SyntaxProblem, EncodingError) as error:
            raise AssemblyError(f"line {number}: {error}") from None
        except (ValueError, KeyError):
            raise AssemblyError(f"line {number}: {line!r} is no directive") from None
    return Image(chip, tuple(kinds), encode(instructions), tuple(locs))


def _parse_line(line: str) -> Instruction:
    match = _LINE.fullmatch(line)
    instruction = parse_instruction(match[1], int(match[2] or 0))
    encode_one(instruction)  # so that a value out of range is told with its line
    return instruction


def _one_line(text: str) -> str:
    return " ".join(text.split())
