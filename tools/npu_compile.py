"""npu-compile: a torch.export archive to model.npu."""

import argparse
import sys
from pathlib import Path

from opennpu.compiler.paused_gc import paused_gc
from opennpu.tools.arguments import output_file
from opennpu.tools.output import write_text
from opennpu.tools.progress import Progress

_EPILOG = """examples:
  npu-compile model.pt -o model.npu
  npu-compile model.pt -o model.npu --target my_chip.toml --report
  npu-compile model.pt --emit npu_tile | less
  npu-compile model.pt -o model.npu --target npu1 --tune
  npu-compile model.pt -o model.npu --dump-dir ir     one file per level of IR
"""


@paused_gc()
def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if not args.emit and not args.output:
        _parser().error("give -o model.npu, or --emit LEVEL to print the program")
    from opennpu.dialects.diagnostics import CompileError
    from opennpu.runtime.chip import ChipError
    from torch_mlir import ir

    try:
        _run(args)
    except (CompileError, ChipError, OSError) as error:
        print(f"npu-compile: error: {error}", file=sys.stderr)
        return 1
    except ir.MLIRError as error:
        print(f"npu-compile: the compiler made invalid IR, a bug in it: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-compile",
        description="Compiles a torch.export archive, of a language model or of anything else.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="made by npu-export or by torch.export.save")
    parser.add_argument("-o", "--output", type=output_file, help="model.npu; with --emit a text file")
    parser.add_argument(
        "--target", default="npu1-lite", help="a chip's name, or a chip file (.toml); default: npu1-lite"
    )
    parser.add_argument("--emit", choices=["torch", "npu", "npu_tile", "npu_isa"], help="print this level")
    parser.add_argument("--dump-dir", type=Path, help="write every level of IR here")
    parser.add_argument(
        "--tune", action="store_true",
        help="try tilings of a language model's products with the timing model, and keep the fastest; what "
        "is found is cached",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="tell what every op became and what it costs")
    return parser


def _run(args: argparse.Namespace) -> None:
    from opennpu.compiler.kernels.choices import Choices
    from opennpu.compiler.pipeline import STAGES, Compilation
    from opennpu.runtime.chip import Chip

    chip = Chip.load(args.target)
    with Progress("npu-compile", STAGES) as progress:
        run = Compilation(chip, args.dump_dir, progress.stage)
        archive = run.load(args.archive)
        if args.tune:
            run.choices = Choices(_tuned(args.archive, archive, chip))
        module = run.lower(archive, args.emit or "npu_isa")
        if args.emit:
            _emit(module, args.output)
            return
        result = run.write(module, archive, args.output, progress.bytes)
    from opennpu.compiler.report import report, summary

    if args.report:
        print(report(result))
    print(summary(args.output, result))


def _tuned(path: Path, archive, chip) -> dict[str, int]:
    """The choices; prints what they save."""
    from opennpu.tools.exploration.tune import LAUNCHES, table, tuned
    from tqdm import tqdm

    with tqdm(desc="npu-compile --tune", unit="tiling", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = tuned(path, archive, chip, LAUNCHES, progress)
    print("\n".join(table(found, LAUNCHES)))
    return found.made


def _emit(module, output: Path | None) -> None:
    with module.context:
        text = module.operation.get_asm(large_elements_limit=16) + "\n"
    write_text(text, output)


if __name__ == "__main__":
    sys.exit(main())
