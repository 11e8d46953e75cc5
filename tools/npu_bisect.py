"""npu-bisect: the first pass of the compiler that changes what a model computes."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from opennpu.tools.arguments import output_folder
from opennpu.tools.progress import Progress

LEVELS = ("npu", "npu_tile", "npu_isa")

_EPILOG = """examples:
  npu-bisect model.pt -o wrong                            a language model: a batch of random prompts
  npu-bisect mlp.pt2 --input x.npy -o wrong               with these inputs
  npu-bisect model.pt --stage npu_tile --stage npu_isa    only these levels
  npu-bisect wrong                                        the folder that it wrote: does it still differ?

Runs the model in PyTorch, and after every pass in the interpreter of its level of IR or, at the end, on the
reference engine. Exit status: 0 no pass differs, 1 one does, 2 the model cannot be run.
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    import torch
    from opennpu.runtime.chip import ChipError
    from opennpu.tools.bisection.levels import FAULTS

    try:
        with torch.no_grad():
            return _again(args.archive) if args.archive.is_dir() else _search(args)
    except (*FAULTS, ChipError, OSError, ValueError, KeyError) as error:
        print(f"npu-bisect: error: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 2


def _search(args: argparse.Namespace) -> int:
    from opennpu.compiler.frontend.archive import load_archive
    from opennpu.runtime.chip import Chip
    from opennpu.tools.bisection.inputs import at_random, given

    archive = load_archive(args.archive)
    values = given(archive, args.input) if args.input else at_random(archive, args.seed)
    return bisect(
        lambda: load_archive(args.archive), values, Chip.load(args.target), args.stage or LEVELS, args.output
    )


def bisect(load: Callable, values, chip, levels: Sequence[str], output: Path | None, pipeline=None) -> int:
    """Prints a line a pass; with `output` writes a reproducer of the first that differs.

    `load` gives the archive, anew each time: the importer changes it. `pipeline` is
    `compiler.pipeline.PIPELINE`, or another such table.
    """
    from opennpu.compiler.pipeline import PIPELINE
    from opennpu.tools.bisection.search import walk

    pipeline = pipeline or PIPELINE
    names = [name for passes in pipeline.values() for name in passes]
    print(f"{'level':9} {'pass':28} {'error before':>13} {'after':>10}")
    compared, wrong = 0, None
    with Progress("npu-bisect", [*names, "reduce"]) as progress:
        for step in walk(load(), values, chip, levels, pipeline, progress.stage):
            print(_row(step))
            compared += 1
            wrong = step if step.differs else None
        if not compared:
            raise ValueError(f"no pass is at level {' or '.join(levels)}: nothing was compared")
        if wrong is None:
            print("no pass changes what the model computes")
            return 0
        progress.stage("reduce")
        print(f"\n{wrong.name} is the first pass whose output differs from its input.")
        for line in reduce(wrong, load, values, chip, output):
            print(line)
    return 1


def _row(step) -> str:
    if step.verdict is None:
        return f"{step.level:9} {step.name:28} {'':>13} {'':>10}  FAULT {step.fault}"
    verdict = step.verdict
    note = f"  DIFFERS in {verdict.output}" if verdict.differs else ""
    return f"{step.level:9} {step.name:28} {verdict.before:13.2g} {verdict.after:10.2g}{note}"


# ---- making it small


def reduce(step, load: Callable, values, chip, output: Path | None) -> list[str]:
    """What to tell of the least part of the model that shows the wrong pass."""
    from opennpu.dialects import load_all
    from opennpu.tools.bisection.levels import level_of
    from torch_mlir import ir

    with load_all(ir.Context()) as context:
        from torch_mlir.dialects import torch as torch_dialect

        torch_dialect.register_dialect(context)
        module = ir.Module.parse(step.before)
    reducers: Mapping[str, Callable] = {"torch": _graph, "npu": _window, "npu_tile": _kernel}
    return reducers.get(level_of(module), _whole)(step, module, load, values, chip, output)


def _whole(step, module, load, values, chip, output: Path | None) -> list[str]:
    """A pass on `npu_isa`: its instructions are not cut apart."""
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "before.mlir").write_text(step.before, encoding="utf-8")
    return _told(["the whole program"], None)


def _window(step, module, load, values, chip, output: Path | None) -> list[str]:
    from opennpu.tools.bisection import reproducer, windows
    from opennpu.tools.bisection.search import still_differs

    found = windows.smallest(module, values, lambda m, v: still_differs(m, step.name, v, chip))
    ops = found.ops if found else ["the whole module: no smaller part of it differs alone"]
    if output:
        made = (found.module, found.values) if found else (module, values)
        reproducer.write_module(output, *made, step.name, chip)
    return _told(ops, output and f"npu-bisect {output}")


def _kernel(step, module, load, values, chip, output: Path | None) -> list[str]:
    from opennpu.tools.bisection import kernels, reproducer
    from opennpu.tools.bisection.levels import text_of
    from opennpu.tools.bisection.search import parsed

    for alone in kernels.each(module, values, chip):
        text = text_of(alone.module)
        if kernels.differs(alone, step.name, chip):
            if output:
                before = kernels.Alone(parsed(text, module.context), alone.arguments, alone.kernel)
                reproducer.write_kernel(output, before, step.name, chip)
            return _told([alone.kernel], output and f"npu-bisect {output}")
    return _told(["the whole module: no kernel differs alone"], None)


def _graph(step, module, load, values, chip, output: Path | None) -> list[str]:
    from opennpu.compiler.frontend.archive import Archive, save_archive
    from opennpu.tools.bisection import graphs
    from opennpu.tools.bisection.levels import FAULTS
    from opennpu.tools.bisection.search import copy_of, walk

    pipeline = {"npu": (step.name,)}

    def differs(archive: Archive, inputs) -> bool:
        try:
            return any(s.differs for s in walk(copy_of(archive), inputs, chip, LEVELS, pipeline))
        except FAULTS:
            return False

    found = graphs.smallest(load(), values, differs)
    if found is None:
        return _told(["the whole graph: no smaller part of it differs alone"], None)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        (output / "before.mlir").write_text(step.before, encoding="utf-8")
        save_archive(output / "model.pt", found.archive)
    files = _save(output, found.values.inputs) if output else []
    return _told(found.nodes, output and f"npu-bisect {output / 'model.pt'} --input {' '.join(files)}")


def _save(folder: Path, inputs: Mapping) -> list[str]:
    import numpy as np
    import torch

    for name, x in inputs.items():
        np.save(folder / f"{name}.npy", (x.float() if x.dtype == torch.bfloat16 else x).numpy())
    return [f"{name}={folder / name}.npy" for name in inputs]


def _told(ops: Sequence[str], command: str | None) -> list[str]:
    lines = ["It changes the result of", *(f"  {op}" for op in ops)]
    return [*lines, f"Reproduce with: {command}"] if command else lines


def _again(folder: Path) -> int:
    from opennpu.tools.bisection.reproducer import reproduces

    name, wrong = reproduces(folder)
    print(f"{name} {'changes what the module computes' if wrong else 'keeps what the module computes'}")
    return int(wrong)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-bisect",
        description="Finds the first pass whose output differs from its input in what it computes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("archive", type=Path, help="made by npu-export or torch.export; or a reproducer")
    parser.add_argument("-o", "--output", type=output_folder, help="folder for a reproducer")
    parser.add_argument(
        "--input", nargs="+", default=[], metavar="[NAME=]FILE.npy", help="by name, or in the program's order"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random inputs, without --input; default: 0")
    parser.add_argument("--stage", action="append", choices=LEVELS, help="a level to check; default: all")
    parser.add_argument("--target", default="npu1-lite", help="a chip's name or file; default: npu1-lite")
    return parser


if __name__ == "__main__":
    sys.exit(main())
