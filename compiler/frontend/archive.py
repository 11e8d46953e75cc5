"""torch.export archives on disk, with what the exporter knew about the model beside them."""

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from opennpu.compiler.frontend import ops as _ops  # noqa: F401  archives may use these operators
from opennpu.dialects.diagnostics import CompileError, Problem
from torch.export import ExportedProgram

METADATA_FILE = "opennpu.json"


@dataclass(frozen=True)
class Archive:
    """An exported program and its metadata, `{}` for an archive of plain torch.export.

    Keys of the metadata, all optional: `dims`: {input name: [extent, …]}, which names the
    symbols; `outputs`: [name, …]; `strides`: {input or output: [extent, …]} of those that do not lie
    row-major, in elements; `ranges`: {symbol: [least, most or None]}, narrower than the program's;
    `model`: free, carried into model.npu; `ties`: {name:
    name}, which meta tensors are one.
    """

    program: ExportedProgram
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_archive(path: Path, archive: Archive) -> None:
    """Write the program with its weights, and the metadata as an extra file."""
    ties = _meta_ties(archive.program)
    metadata = {**archive.metadata, "ties": ties} if ties else archive.metadata
    with path.open("wb") as file:
        torch.export.save(archive.program, file, extra_files={METADATA_FILE: json.dumps(metadata)})


def load_archive(path: Path) -> Archive:
    """Read an archive made by npu-export or by torch.export.save. Raises CompileError."""
    extra_files = {METADATA_FILE: ""}
    _check_archive(path)
    try:
        with path.open("rb") as file, _quiet_torch():
            program = torch.export.load(file, extra_files=extra_files)
    except Exception as error:
        remedy = f"This is PyTorch {torch.__version__}; export the model with the same release."
        raise CompileError(Problem(f"{path} cannot be loaded: {error}", remedy=remedy)) from error
    metadata = json.loads(extra_files[METADATA_FILE] or "{}")
    _separate_meta(program, metadata.get("ties", {}))
    return Archive(program, metadata)


def tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Weights, buffers and constants by name."""
    return {**program.constants, **program.state_dict}


def memory(tensor: torch.Tensor) -> tuple:
    """Equal for two tensors exactly where they are views of the same elements."""
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _meta_ties(program: ExportedProgram) -> dict[str, str]:
    """{name: the first name} of meta tensors with several names."""
    first: dict[tuple, str] = {}
    metas = {name: memory(tensor) for name, tensor in tensors(program).items() if tensor.is_meta}
    return {name: first[key] for name, key in metas.items() if first.setdefault(key, name) != name}


def _separate_meta(program: ExportedProgram, ties: Mapping[str, str]) -> None:
    """Gives meta tensors that are not tied a storage of their own: a saved program has one for all."""
    separate: dict[str, torch.Tensor] = {}
    for held in (program.constants, program.state_dict):
        for name, tensor in held.items():
            if tensor.is_meta:
                held[name] = separate.setdefault(ties.get(name, name), _own_storage(tensor))


def _own_storage(tensor: torch.Tensor) -> torch.Tensor:
    own = torch.empty_like(tensor, requires_grad=False)
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    return torch.nn.Parameter(own, tensor.requires_grad) if is_parameter else own


def _check_archive(path: Path) -> None:
    remedy = "Make one with npu-export, or with torch.export.save."
    if not path.is_file():
        raise CompileError(Problem(f"{path} does not exist or is not a file", remedy=remedy))
    if _is_compiled(path):
        what = f"{path} is a compiled program: it has instructions and weights, but no graph"
        raise CompileError(Problem(what, remedy="Give the archive, .pt, that it was compiled from."))
    if not zipfile.is_zipfile(path):
        raise CompileError(Problem(f"{path} is not a torch.export archive: not a zip file", remedy=remedy))
    with zipfile.ZipFile(path) as files:
        models = [name for name in files.namelist() if "/models/" in name and name.endswith(".json")]
        if not models:
            what = f"{path} is a zip file, but no torch.export archive: it holds no exported program"
            raise CompileError(Problem(what, remedy=remedy))
        made_by = _made_by(files, models[0])
    if _release(made_by) > _release(torch.__version__):
        what = f"{path} was made by PyTorch {made_by}, newer than the PyTorch {torch.__version__} here"
        raise CompileError(Problem(what, remedy="Export the model again with this PyTorch."))


def _is_compiled(path: Path) -> bool:
    """A model.npu: a safetensors file, whose header begins with its length and names our format."""
    with path.open("rb") as file:
        size, start = int.from_bytes(file.read(8), "little"), file.read(4096)
    return size < path.stat().st_size and start.startswith(b"{") and b'"opennpu.format"' in start


def _made_by(files: zipfile.ZipFile, model: str) -> str:
    """The version of PyTorch; empty where it cannot be read, which loading will explain."""
    try:
        return json.loads(files.read(model)).get("torch_version", "")
    except (ValueError, AttributeError, zipfile.BadZipFile):
        return ""


def _release(version: str) -> tuple[int, ...]:
    """(major, minor) of a PyTorch version; empty where there is none."""
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """torch.export logs a traceback before it raises the same; the raised one is enough."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
