"""npu-opt: runs passes over MLIR text, with the conventions of mlir-opt."""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from opennpu.compiler.pass_manager import Stage, parse_pipeline, run_pipeline
from opennpu.compiler.passes import registry
from opennpu.dialects import load_all
from opennpu.dialects.diagnostics import CompileError
from opennpu.dialects.printer import pretty
from opennpu.tools import expected_diagnostics
from opennpu.tools.arguments import output_file
from opennpu.tools.expected_diagnostics import Diagnostic
from opennpu.tools.output import write_text
from torch_mlir import ir

_EPILOG = """examples:
  npu-compile model.pt --dump-dir ir -o model.npu
  npu-opt ir/torch.mlir --convert-torch-to-npu --npu-canonicalize --pretty
  npu-opt ir/npu.mlir --convert-npu-to-tile=chip=npu1 -o tile.mlir
  npu-opt --pass-pipeline='builtin.module(npu-canonicalize,cse)' < ir/npu.mlir
"""

SPLIT = re.compile(r"^[ \t]*// -----.*$", re.MULTILINE)


@dataclass
class Outcome:
    """What one piece of the input gave: text, or None after an error."""

    text: str | None
    diagnostics: list[Diagnostic]


def main(argv: list[str] | None = None) -> int:
    arguments, passes = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        stages = pipeline_of(arguments, passes)
        source = sys.stdin.read() if arguments.input == "-" else _read(arguments.input)
    except (CompileError, OSError) as error:
        print(f"npu-opt: {error}", file=sys.stderr)
        return 1
    pieces = split(source) if arguments.split_input_file else [source]
    outcomes = [run(piece, stages, arguments) for piece in pieces]
    write_text("// -----\n".join(o.text for o in outcomes if o.text is not None), arguments.output)
    if arguments.verify_diagnostics:
        return verify_diagnostics(pieces, outcomes)
    for diagnostic in (d for o in outcomes for d in o.diagnostics):
        print(diagnostic, file=sys.stderr)
    return int(any(o.text is None for o in outcomes))


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the flags that name passes, in order."""
    parser = argparse.ArgumentParser(
        prog="npu-opt",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Runs passes over MLIR text: --PASS[=option=value] or --pass-pipeline, in MLIR's syntax.",
    )
    if {"-h", "--help"} & set(argv):
        passes = sorted(registry.load_all().values(), key=lambda p: p.name)
        rows = "\n".join(f"  --{p.name:28} {p.summary}" for p in passes)
        parser.epilog = f"{_EPILOG}\npasses (MLIR's own are known too):\n{rows}"
    parser.add_argument("input", nargs="?", default="-", help="a file, or - for the standard input")
    parser.add_argument("-o", dest="output", type=output_file, help="default: standard output")
    parser.add_argument("--pass-pipeline", help="'builtin.module(…)'")
    parser.add_argument("--split-input-file", action="store_true", help="pieces between // ----- alone")
    parser.add_argument("--verify-diagnostics", action="store_true", help="check expected-error comments")
    parser.add_argument("--mlir-print-ir-after-all", action="store_true", help="the module after each pass")
    parser.add_argument("--mlir-print-debuginfo", action="store_true", help="with source locations")
    parser.add_argument("--allow-unregistered-dialect", action="store_true")
    parser.add_argument("--pretty", action="store_true", help="readable text, which cannot be parsed again")
    return parser.parse_known_args(argv)


def pipeline_of(arguments: argparse.Namespace, passes: list[str]) -> list[Stage]:
    if arguments.pass_pipeline and passes:
        raise CompileError(f"give --pass-pipeline or passes by flag, not both: {' '.join(passes)}")
    if arguments.pass_pipeline:
        return parse_pipeline(arguments.pass_pipeline)
    stages = []
    for flag in passes:
        name, _, options = flag.removeprefix("--").partition("=")
        if not flag.startswith("--"):
            raise CompileError(f"unknown argument '{flag}'; try --help")
        stages += parse_pipeline(f"{name}{{{options}}}" if options else name)
    return stages


def run(source: str, stages: list[Stage], arguments: argparse.Namespace) -> Outcome:
    """Parses one piece and runs the passes over it in a context of its own."""
    seen: list[Diagnostic] = []

    def handle(diagnostic: ir.Diagnostic) -> bool:
        seen.extend(expected_diagnostics.from_mlir(diagnostic))
        return True

    def print_after(stage: Stage, module: ir.Module) -> None:
        if arguments.mlir_print_ir_after_all:
            title = f"// -----// IR Dump After {stage.text} //----- //"
            print(f"{title}\n{render(module, arguments)}", file=sys.stderr)

    context = load_all(ir.Context())
    context.allow_unregistered_dialects = arguments.allow_unregistered_dialect
    context.attach_diagnostic_handler(handle)
    text = None
    with context, ir.Location.unknown():
        try:
            module = ir.Module.parse(source)
            run_pipeline(module, stages, print_after)
            text = render(module, arguments)
        except ir.MLIRError as error:
            for diagnostic in error.error_diagnostics:
                handle(diagnostic)
        except CompileError as error:
            seen.extend(expected_diagnostics.from_compile_error(error))
    name = "<stdin>" if arguments.input == "-" else arguments.input
    seen = [
        Diagnostic(d.severity, d.message, name if d.file == "-" else d.file, d.line, d.column) for d in seen
    ]
    return Outcome(None if any(d.severity == "error" for d in seen) else text, seen)


def render(module: ir.Module, arguments: argparse.Namespace) -> str:
    if arguments.pretty:
        return pretty(module.operation)
    return module.operation.get_asm(enable_debug_info=arguments.mlir_print_debuginfo) + "\n"


def split(source: str) -> list[str]:
    """The pieces between `// -----` lines, each on the lines that it has in the file."""
    pieces, start = [], 0
    for match in [*SPLIT.finditer(source), None]:
        end = match.start() if match else len(source)
        pieces.append("\n" * source.count("\n", 0, start) + source[start:end])
        start = match.end() if match else end
    return pieces


def verify_diagnostics(pieces: list[str], outcomes: list[Outcome]) -> int:
    problems = [
        problem
        for piece, outcome in zip(pieces, outcomes, strict=True)
        for problem in expected_diagnostics.compare(
            expected_diagnostics.annotations(piece), outcome.diagnostics
        )
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CompileError(f"{path} is not MLIR text: {error}") from error
