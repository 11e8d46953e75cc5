"""What the C++ of the device asks when a call has no program yet: `compile_call`.

The answer is a program image and a `Recipe`, which tells a launch how the tensors of a call bind the
program's symbols and make its arguments.
"""

import dataclasses
import functools
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from opennpu.compiler.cache import Cache, default_folder, key_of
from opennpu.compiler.tensor_spec import TensorSpec
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime import _torch
from opennpu.runtime.container import Container
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.extents import Extent
from opennpu.runtime.settings import settings
from opennpu.runtime.signature import KV_FIELDS, Signature, TensorArg

compiling = threading.Lock()
"""Held by who asks: a program is compiled once, whoever needs it."""

Measure = tuple[int, bool, int]
"""(operand, whether its stride is meant or its size, dimension). The operands of a call are its
tensors, then the outputs where they exist before the call."""

Terms = tuple[tuple[int, tuple[int, ...]], ...]
"""A polynomial: (coefficient, symbols as numbers) of each term."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a launch follows the signature; runtime/torch/operator.h reads it."""

    symbols: list[tuple[int, int]]  # (least, most or -1)
    binds: list[tuple[Measure, int, Terms, Terms]]  # measure = constant + slope · symbol, in this order
    checks: list[tuple[Measure, Terms]]  # measure = polynomial
    outputs: list[tuple[torch.dtype, tuple[Terms, ...]]]
    arguments: list[tuple[str, int, Terms]]  # kind; which operand, output, symbol, KV field; bytes
    kv: list[int]  # the operands k_cache, v_cache


class Unbindable(ValueError):
    """A signature whose symbols the tensors do not determine."""


def compile_call(
    target: str, args: list, kwargs: dict, out: list, number: int
) -> tuple[bytes, Recipe, bool] | str:
    """A program for calls of this kind, or a text that says why there is none.

    It is what the compile cache has under this number, counted from 0, which may be for other sizes; else it
    is compiled for this call, and the answer ends in True.
    target: as in the conversion table; tensors among the arguments are `TensorSpec`, and so is `out`: outputs
    that exist already, empty for none.
    """
    chip = settings().load_chip()
    request = [number, target, *map(_kind, (args, kwargs, out))]
    compiled = False

    def build(path: Path) -> None:
        from opennpu.compiler.operator import compile_operator  # takes a second: not where the cache knows

        nonlocal compiled
        compiled = True
        path.write_bytes(compile_operator(target, args, kwargs, chip=chip, out=out or None))
        recipe(Container.open(path).signature, bool(out))  # a program that cannot be bound is not kept

    try:
        container = _from_cache(key_of(request, chip.canonical_json()), build)
        return container.program, recipe(container.signature, bool(out)), compiled
    except (CompileError, Unbindable) as error:
        return str(error).partition("\n")[0]


def _from_cache(key: str, build: Callable[[Path], None]) -> Container:
    """The cache's entry; what `build` writes where there is none and the cache takes none."""
    try:
        return Container.open(Cache().get_or_build(key, build))
    except OSError as error:
        _warn_of_cache(default_folder(), error.strerror)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npu"
        build(path)
        return Container.open(path)


@functools.cache
def _warn_of_cache(folder: Path, reason: str) -> None:
    text = f"{folder} cannot hold compiled programs ({reason}): each process compiles its own."
    warnings.warn(f"{text} Set OPENNPU_CACHE_DIR to a folder that can.", RuntimeWarning, stacklevel=2)


def load_program(container: Container, device: int) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """What launches a program on the current stream: its inputs → its outputs, which are new.

    Inputs are as many as their names count, `arg0, arg1, …`; those that the program does not use may be
    anything. Behind them comes the weight segment, if the program has one. Raises Unbindable.
    """
    return _torch.GraphProgram(device, container.program, recipe(container.signature, False))


def load_language_model(
    container: Container, device: int, inputs: Sequence[str]
) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """As `load_program`, for a program whose pages are a pool's and whose inputs have names.

    What is launched takes the tensors of `inputs`, then the pages of all layers' keys, of their values,
    [layers, pages, page_size, kv_heads, dim], then the weight segment. Raises Unbindable.
    """
    signature, numbers = container.signature, {name: f"arg{i}" for i, name in enumerate(inputs)}
    args = [dataclasses.replace(a, name=numbers[a.name]) if a.kind == "input" else a for a in signature.args]
    pages = (f"arg{len(inputs)}", f"arg{len(inputs) + 1}")
    kv = dataclasses.replace(signature.kv, tensors=pages)
    numbered = dataclasses.replace(signature, args=tuple(args), kv=kv)
    return _torch.GraphProgram(device, container.program, recipe(numbered, False, all_layers=True))


def recipe(signature: Signature, outputs_exist: bool, all_layers: bool = False) -> Recipe:
    """Weights are the operand behind the inputs; all_layers: KV pages have one more dimension in front.

    Raises Unbindable.
    """
    numbers = {name: i for i, name in enumerate(signature.symbols)}
    outputs = list(signature.tensors("output").values())
    operands = {name: _number(name) for name in signature.tensors("input")}
    if outputs_exist:
        first = _operand_count(signature)
        operands |= {arg.name: first + i for i, arg in enumerate(outputs)}
    measures = [
        measure
        for arg in signature.args
        if isinstance(arg, TensorArg) and arg.name in operands
        for measure in _measures(arg, operands[arg.name])
    ]
    binds, checks = _solve(measures, signature.symbols)
    return Recipe(
        symbols=[(least, -1 if most is None else most) for least, most in signature.symbols.values()],
        binds=[
            (m, numbers[s], _terms(constant, numbers), _terms(slope, numbers))
            for m, s, constant, slope in binds
        ],
        checks=[(m, _terms(extent, numbers)) for m, extent in checks]
        + _page_checks(signature, int(all_layers)),
        outputs=[(DTYPES[o.dtype], tuple(_terms(e, numbers) for e in o.shape)) for o in outputs],
        arguments=list(_arguments(signature, numbers, {o.name: i for i, o in enumerate(outputs)})),
        kv=_pages(signature),
    )


def _measures(arg: TensorArg, operand: int) -> Iterator[tuple[Measure, Extent]]:
    yield from (((operand, False, i), extent) for i, extent in enumerate(arg.shape))
    yield from (((operand, True, i), extent) for i, extent in enumerate(arg.strides or ()))


def _solve(measures: list[tuple[Measure, Extent]], symbols: Mapping[str, Any]):
    """What binds each symbol, in an order in which that can be done, and what is left to check.

    An extent binds the one symbol that has no value yet, where it is linear in it.
    """
    binds, known = [], set()
    rest = list(measures)
    while known != set(symbols):
        found = next(((m, e, s) for m, e in rest for s in [_linear_in(e, known)] if s), None)
        if found is None:
            raise Unbindable(f"the tensors do not determine {', '.join(sorted(set(symbols) - known))}")
        measure, extent, symbol = found
        constant = Extent({m: c for m, c in extent.terms.items() if symbol not in m})
        slope = Extent({_without(m, symbol): c for m, c in extent.terms.items() if symbol in m})
        binds.append((measure, symbol, constant, slope))
        rest.remove((measure, extent))
        known.add(symbol)
    return binds, rest


def _linear_in(extent: Extent, known: set[str]) -> str | None:
    unknown = extent.symbols - known
    if len(unknown) != 1:
        return None
    (symbol,) = unknown
    return symbol if all(monomial.count(symbol) <= 1 for monomial in extent.terms) else None


def _without(monomial: tuple[str, ...], symbol: str) -> tuple[str, ...]:
    return tuple(name for name in monomial if name != symbol)


def _terms(extent: Extent, numbers: Mapping[str, int]) -> Terms:
    return tuple((c, tuple(numbers[name] for name in monomial)) for monomial, c in extent.terms.items())


def _arguments(signature: Signature, numbers: Mapping[str, int], outputs: Mapping[str, int]):
    for arg in signature.args:
        match arg.kind:
            case "input":
                yield "input", _number(arg.name), ()
            case "output":
                yield "output", outputs[arg.name], ()
            case "symbol":
                yield "symbol", numbers[arg.name], ()
            case "kv":
                yield "kv", KV_FIELDS.index(arg.field), ()
            case "weights" if signature.weight_bytes:
                yield "input", _operand_count(signature), ()
            case "workspace" | "weights":  # no weights are a workspace of no bytes
                yield "workspace", 0, _terms(arg.bytes, numbers)


# ---- the kind of a call


def _kind(value: Any) -> Any:
    """Arguments of a call without what its programs have in common: as runtime/torch/key.h has it, of sizes
    and strides only whether they are 0, 1 or more."""
    match value:
        case list():
            return [_kind(item) for item in value]
        case dict():
            return {name: _kind(item) for name, item in value.items()}
        case TensorSpec():
            strides = value.strides and tuple(min(s, 2) for s in value.strides)
            return dataclasses.replace(value, sizes=tuple(min(s, 2) for s in value.sizes), strides=strides)
    return value


# ---- operands


def _number(name: str) -> int:
    return int(name.removeprefix("arg"))


def _pages(signature: Signature) -> list[int]:
    return [] if signature.kv is None else [_number(name) for name in signature.kv.tensors]


def _operand_count(signature: Signature) -> int:
    return 1 + max([*map(_number, signature.tensors("input")), *_pages(signature)], default=-1)


def _page_checks(signature: Signature, first: int) -> list[tuple[Measure, Terms]]:
    """The sizes of a page's heads, which are constants of the program; `first` is the dimension of pages."""
    if signature.kv is None:
        return []
    kv, (k, v) = signature.kv, _pages(signature)
    sizes = {(k, 2): kv.kv_heads, (v, 2): kv.kv_heads, (k, 3): kv.head_dim, (v, 3): kv.v_head_dim}
    return [((operand, False, first + dim), ((size, ()),)) for (operand, dim), size in sizes.items()]
