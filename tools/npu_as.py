"""npu-as: assembly text to a program image."""

import argparse
import sys
from pathlib import Path

from opennpu.compiler.assembly import AssemblyError, parse_assembly
from opennpu.compiler.image import pack_image
from opennpu.tools.arguments import output_file

_EPILOG = """examples:
  npu-dis model.npu -o model.s
  npu-as model.s -o program.bin      the image that model.npu holds, bit for bit
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "npu-as",
        description="Assembles a program. The syntax is what npu-dis prints.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help="assembly text; - reads standard input")
    parser.add_argument("-o", "--output", required=True, type=output_file, help="the program image to write")
    args = parser.parse_args(argv)
    try:
        text = sys.stdin.read() if args.input == "-" else Path(args.input).read_text()
        args.output.write_bytes(pack_image(parse_assembly(text)))
    except (AssemblyError, OSError, UnicodeDecodeError) as error:
        print(f"npu-as: {args.input}: {error}", file=sys.stderr)
        return 1
    return 0
