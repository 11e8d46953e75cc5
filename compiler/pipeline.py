"""The compiler from end to end: a torch.export archive to a model.npu."""

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.container import write_model
from opennpu.compiler.frontend.archive import Archive, load_archive, tensors
from opennpu.compiler.frontend.importer import import_program
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.pass_manager import Stage, run_pipeline
from opennpu.compiler.passes import registry
from opennpu.compiler.weights import check_weights, have_values, segment
from opennpu.dialects import load_all
from opennpu.dialects.printer import pretty
from opennpu.runtime.chip import Chip
from torch_mlir import ir

PIPELINE: dict[str, tuple[str, ...]] = {
    "npu": (
        "convert-torch-to-npu",
        "npu-canonicalize",
        "npu-fuse-rope-kv",
        "npu-fuse-add-norm",
        "npu-fuse-epilogue",
        "npu-fuse-elementwise",
        "npu-roll-layers",
    ),
    "npu_tile": (
        "convert-npu-to-tile",
        "npu-tile-double-buffer",
        "loop-invariant-code-motion",
        "cse",
        "npu-tile-plan-memory",
        "npu-tile-insert-sync",
    ),
    "npu_isa": ("convert-tile-to-isa",),
}
"""Level of IR → the passes that lead to it; torch is where the importer leaves the program."""

ROLL = "npu-roll-layers"
LEVELS = ("torch", *PIPELINE)
STAGES = ("load", *LEVELS, "assemble", "weights")
"""What a compilation does, in order, as `Compilation.progress` is told and `Result.seconds` tells."""


def stage(name: str, chip: Chip, choices: Choices | None = None) -> Stage:
    """A pass of the pipeline, told the chip, and choices, where it asks for them."""
    own = registry.find(name)
    asked = inspect.signature(own.run).parameters if own is not None else ()
    options = {"chip": chip, "choices": choices}
    return Stage(name, own, {key: value for key, value in options.items() if key in asked})


@dataclass
class Compilation:
    """One run of the compiler, and what it learned on the way.

    `capture` is a call of `passes.capture.run`, which then runs before the layers are rolled.
    """

    chip: Chip
    dump_dir: Path | None = None
    progress: Callable[[str], None] = lambda stage: None
    capture: Callable[[ir.Module], object] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    choices: Choices = field(default_factory=Choices)

    def load(self, path: Path) -> Archive:
        """The archive at `path`. Raises CompileError."""
        with self._timed("load"):
            return load_archive(path)

    def lower(self, archive: Archive, level: str = "npu_isa") -> ir.Module:
        """The archive's program at a level of IR. Raises CompileError."""
        with self._timed("torch"):
            module = import_program(archive, load_all(ir.Context()))
        return self.lower_module(module, level)

    def lower_module(self, module: ir.Module, level: str = "npu_isa") -> ir.Module:
        """An imported module at a level of IR; changes it. Raises CompileError."""
        self._dump("torch", module)
        for name in LEVELS[1 : LEVELS.index(level) + 1]:
            with self._timed(name), module.context, ir.Location.unknown():
                run_pipeline(module, self._stages(name))
            self._dump(name, module)
        return module

    def _stages(self, level: str) -> list[Stage]:
        stages = [stage(name, self.chip, self.choices) for name in PIPELINE[level]]
        if self.capture and ROLL in PIPELINE[level]:
            own = registry.Pass("npu-capture", "as the caller wants it", self.capture)
            stages.insert(PIPELINE[level].index(ROLL), Stage(own.name, own))
        return stages

    def write(
        self,
        module: ir.Module,
        archive: Archive,
        output: Path,
        written: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Result":
        """Assembles a module at level npu_isa and writes model.npu with the archive's weights.

        `written` is told the bytes of weights that are written, and of all.
        """
        program, signature = self.assemble(module)
        signature["model"] = dict(archive.metadata.get("model", {}))
        with self._timed("weights"):
            size = next(arg["bytes"] for arg in signature["args"] if arg["kind"] == "weights")
            values = tensors(archive.program)
            check_weights(signature["weights"], values)
            complete = have_values(signature["weights"], values)
            stream = segment(signature["weights"], values, self.chip, size) if complete else None
            write_model(output, program, signature, stream and _watched(stream, size, written), size)
        return Result(signature, len(program), complete, self.seconds)

    def assemble(self, module: ir.Module) -> tuple[bytes, dict]:
        """The program image and the signature of a module at level npu_isa. Raises CompileError."""
        with self._timed("assemble"), module.context, ir.Location.unknown():
            return assemble(module, self.chip), {"chip": self.chip.to_dict(), **signature_of(module)}

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self.progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def _dump(self, name: str, module: ir.Module) -> None:
        """`<level>.mlir` for npu-opt, and `<level>.txt` for people."""
        if self.dump_dir is None:
            return
        self.dump_dir.mkdir(parents=True, exist_ok=True)
        with module.context:
            asm = module.operation.get_asm(enable_debug_info=True, large_elements_limit=16)
            (self.dump_dir / f"{name}.mlir").write_text(asm)
            (self.dump_dir / f"{name}.txt").write_text(pretty(module.operation))


def _watched(stream: Iterator[bytes], total: int, written: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    for chunk in stream:
        yield chunk
        done += len(chunk)
        written(done, total)


@dataclass(frozen=True)
class Result:
    """What was written: the signature, bytes of program image, whether weights are in, time per stage."""

    signature: dict
    program_bytes: int
    has_weights: bool
    seconds: dict[str, float]


def compile_model(
    archive: Archive | Path,
    output: Path,
    chip: str | Path | Chip = "npu1-lite",
    dump_dir: Path | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Result:
    """Compiles an archive into model.npu. Raises CompileError, ChipError, OSError."""
    run = Compilation(Chip.load(chip), dump_dir, progress)
    archive = run.load(archive) if isinstance(archive, Path) else archive
    return run.write(run.lower(archive), archive, output)
