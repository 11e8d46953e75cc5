"""The table of OpenNPU's own passes, by name.

A pass is one module of this package: `fuse_epilogue.py` registers `npu-fuse-epilogue`
and is tested by `test/lit/passes/fuse_epilogue.mlir`.
"""

import importlib
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


PASSES: dict[str, Pass] = {}


def register_pass(name: str, summary: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers `run(module, **options)` as the pass `name`."""

    def register(run: Callable[[Module], None]) -> Callable[[Module], None]:
        assert name not in PASSES, f"pass {name} is registered twice"
        PASSES[name] = Pass(name, summary, run)
        return run

    return register


def load_all() -> dict[str, Pass]:
    """Imports every module of the package, so that PASSES is complete, and returns it."""
    package = __name__.rpartition(".")[0]
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{info.name}")
    return PASSES
