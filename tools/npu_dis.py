"""npu-dis: a compiled model or a program image as assembly text."""

import argparse
import sys
from pathlib import Path

from opennpu.compiler.assembly import print_image
from opennpu.compiler.container import ContainerError, read_program
from opennpu.compiler.image import ImageError, parse_image
from opennpu.dialects.isa.encoding import EncodingError
from opennpu.tools.arguments import output_file
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-dis model.npu | less
  npu-dis program.bin -o program.s
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "npu-dis",
        description="Prints the program of a model.npu or of a bare program image. npu-as reads it back.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, help="model.npu or a program image")
    parser.add_argument("-o", "--output", type=output_file, help="write here instead of standard output")
    args = parser.parse_args(argv)
    try:
        write_text(print_image(parse_image(read_program(args.input))), args.output)
    except (ContainerError, ImageError, EncodingError, OSError) as error:
        print(f"npu-dis: {args.input}: {error}", file=sys.stderr)
        return 1
    return 0
