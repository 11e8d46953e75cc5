"""Names of what a profile shows."""

import re

from opennpu.compiler.image import parse_image
from opennpu.dialects.isa.encoding import decode

ENDS = "(start and end of the program)"


def op_name(source: str) -> str:
    """The module paths of a source op: `model.layers.*.mlp.down_proj (linear.py:1786)` without the file."""
    return re.sub(r" \([^()]*\)", "", source) or ENDS


def instruction_names(image: bytes) -> list[str]:
    """By index in the text of a program image."""
    return [instruction.name for instruction in decode(parse_image(image).text)]
