"""The table of OpenNPU's own passes, by name.

A pass is one module of this package: `fuse_epilogue.py` registers `npu-fuse-epilogue`
and is tested by `test/lit/passes/fuse_epilogue.mlir`.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from torch_mlir.ir import Module


@dataclass(frozen=True)
class Pass:
    """One pass: `run(module, **options)` rewrites the module in place.

    Failure is a `dialects.diagnostics.CompileError` or an MLIR diagnostic, never a half-told one.
    """

    name: str
    summary: str
    run: Callable[..., None]


_PACKAGE = __name__.rpartition(".")[0]

PASSES: dict[str, Pass] = {}


def register_pass(name: str, summary: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers `run(module, **options)` as the pass `name`."""

    def register(run: Callable[[Module], None]) -> Callable[[Module], None]:
        assert name not in PASSES, f"pass {name} is registered twice"
        PASSES[name] = Pass(name, summary, run)
        return run

    return register


def find(name: str) -> Pass | None:
    """The pass of this name, or None; imports only the module that is named like it."""
    module = name.removeprefix("npu-").replace("-", "_")
    if name not in PASSES and module.isidentifier() and importlib.util.find_spec(f"{_PACKAGE}.{module}"):
        importlib.import_module(f"{_PACKAGE}.{module}")
    return PASSES.get(name)


def load_all() -> dict[str, Pass]:
    """Imports every module of the package, so that PASSES is complete, and returns it."""
    for info in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__):
        importlib.import_module(f"{_PACKAGE}.{info.name}")
    return PASSES
