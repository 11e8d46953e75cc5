"""Runs pipelines that mix OpenNPU's passes with those of MLIR.

A pipeline is MLIR's text, `builtin.module(npu-fuse-epilogue,func.func(cse),npu-x{a=1})`,
or only its inside. OpenNPU's passes run on the module; what stands between them goes to
MLIR's own pass manager, which alone can run it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from opennpu.compiler.passes import registry
from opennpu.dialects.diagnostics import CompileError
from torch_mlir import ir
from torch_mlir.passmanager import PassManager

MODULE = "builtin.module("


@dataclass(frozen=True)
class Stage:
    """One element of a pipeline: a pass of OpenNPU's, or a piece of MLIR's pipeline text."""

    text: str
    own: registry.Pass | None = None
    options: dict[str, Any] = field(default_factory=dict)


def run_pipeline(
    module: ir.Module,
    pipeline: str | Sequence[Stage],
    after: Callable[[Stage, ir.Module], None] = lambda stage, module: None,
) -> None:
    """Runs the passes in order, verifies the module after each, then calls `after`.

    CompileError or ir.MLIRError say what failed.
    """
    for stage in parse_pipeline(pipeline) if isinstance(pipeline, str) else pipeline:
        if stage.own:
            _run_own(stage, module)
        else:
            PassManager.parse(f"{MODULE}{stage.text})").run(module.operation)
        after(stage, module)


def parse_pipeline(text: str) -> list[Stage]:
    """The stages of a pipeline's text; CompileError where it names an unknown pass."""
    text = text.strip()
    if text.startswith(MODULE) and text.endswith(")"):
        text = text[len(MODULE) : -1]
    return [_parse_stage(element) for element in _split(text, ",")]


def _run_own(stage: Stage, module: ir.Module) -> None:
    try:
        stage.own.run(module, **stage.options)
    except TypeError as error:
        if error.__traceback__.tb_next is None:
            raise CompileError(f"{stage.own.name}: {error}") from None
        raise
    module.operation.verify()


def _parse_stage(text: str) -> Stage:
    name, _, options = text.partition("{")
    own = registry.find(name.strip())
    if own:
        return Stage(text, own, parse_options(options.removesuffix("}")))
    with ir.Context():
        try:
            PassManager.parse(f"{MODULE}{text})")
        except ValueError as error:
            raise CompileError(_unknown(text, str(error))) from None
    return Stage(text)


def _unknown(text: str, message: str) -> str:
    anchor, _, nested = text.removesuffix(")").partition("(")
    inside = [stage for stage in _split(nested, ",") if registry.find(stage.partition("{")[0])]
    if inside:
        return f"{inside[0]} runs on the module and cannot be nested in {anchor}(…)"
    return message.splitlines()[0]


def parse_options(text: str) -> dict[str, Any]:
    """`a=1 b=x` as keyword arguments: integers and booleans as such, the rest as text."""
    options = {}
    for option in _split(text, " "):
        key, _, value = option.partition("=")
        options[key.replace("-", "_")] = _literal(value)
    return options


def _literal(text: str) -> int | bool | str:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.lstrip("-").isdigit() else text


def _split(text: str, separator: str) -> list[str]:
    """Splits outside of brackets; drops empty pieces."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        if character == separator and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return [piece.strip() for piece in pieces if piece.strip()]
