"""The model that is validated: its archive, its program, and both on their way to results."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from opennpu.compiler.cache import compiler_version
from opennpu.compiler.frontend.archive import Archive, load_archive
from opennpu.compiler.pipeline import Compilation
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.runtime.language_model import CachedSequence, Chunk, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program
from torch import Tensor
from torch_mlir import ir

PAGE_SIZE = 16  # tokens
DIGITS = 12  # of a digest in a file's name


class ValidationError(RuntimeError):
    """What stops a validation; the text says what to do."""


@dataclass
class Subject:
    """A model directory on a chip. What is made on the way lies in `work_dir` and is kept there."""

    model_dir: Path
    work_dir: Path
    dtype: str = "bf16"
    target: str = "npu1-lite"
    engine: str = "native"
    threads: int | None = None

    @cached_property
    def archive_file(self) -> Path:
        """Where the archive lies, made or not: named by the model's configuration and weight files."""
        digest = hashlib.sha256((self.model_dir / "config.json").read_bytes())
        for path in sorted(self.model_dir.iterdir()):
            if path.suffix in (".safetensors", ".bin"):
                stat = path.stat()
                digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\0".encode())
        return self.work_dir / f"{self.dtype}-{digest.hexdigest()[:DIGITS]}.pt"

    @cached_property
    def archive_path(self) -> Path:
        """model.pt, made by npu-export in a process of its own: SGLang's configuration is global."""
        path = self.archive_file
        if not path.exists():
            command = [sys.executable, "-m", "opennpu.tools.npu_export", str(self.model_dir), "-o", str(path)]
            result = subprocess.run([*command, "--dtype", self.dtype], capture_output=True, text=True)
            if result.returncode:
                raise ValidationError(result.stderr.strip() or "npu-export failed")
        return path

    @cached_property
    def program_path(self) -> Path:
        """model.npu for the chip, named by the archive, the chip and the compiler that made it."""
        chip = Chip.load(self.target)
        made = json.dumps([chip.to_dict(), compiler_version()], sort_keys=True, default=str)
        digest = hashlib.sha256(made.encode()).hexdigest()[:DIGITS]
        path = self.work_dir / f"{self.archive_file.stem}-{chip.name}-{digest}.npu"
        if not path.exists():
            self.compile(path)
        return path

    def load_archive(self) -> Archive:
        return load_archive(self.archive_path)

    def compile(self, path: Path, capture: Callable[[ir.Module], object] | None = None) -> Archive:
        """Writes the program of the archive to `path`; the archive."""
        run = Compilation(Chip.load(self.target), capture=capture)
        archive = run.load(self.archive_path)
        run.write(run.lower(archive), archive, path)
        return archive

    def load(self, path: Path | None = None, tokens: int = 4096) -> "ChipModel":
        """The program, or one at another path, on a chip with KV pages for `tokens` tokens."""
        device = Device(Chip.load(self.target), engine=self.engine, threads=self.threads)
        return ChipModel(Program.load(device, path or self.program_path), tokens)


class ChipModel:
    """A compiled language model, as the levels use it."""

    def __init__(self, program: Program, tokens: int = 4096):
        pool = PagePool(program.device, program.signature.kv, PAGE_SIZE, -(-tokens // PAGE_SIZE))
        self.program, self.pool, self.model = program, pool, LanguageModel(program, pool)

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        return list(self.model.generate(prompt, count))

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, vocabulary] in float32, teacher-forced, in one launch."""
        sequence = CachedSequence()
        (logits,) = self.model.forward([Chunk(sequence, tokens, logits=len(tokens))])
        self.model.release(sequence)
        return logits

    def outputs(self, tokens: Sequence[int], **more: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(all outputs, inputs) of one launch over the tokens, whose logits are all asked for."""
        sequence = CachedSequence(pages=self.pool.alloc(-(-len(tokens) // PAGE_SIZE)))
        inputs = self.model.inputs([Chunk(sequence, tokens, logits=len(tokens))])
        outputs = self.program.run({**inputs, **more}, self.pool)
        self.model.release(sequence)
        return outputs, inputs

    @property
    def slots(self) -> int:
        return self.pool.pages * PAGE_SIZE


def torch_dtype(name: str) -> torch.dtype:
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
