"""One operator as a program of its own: how PyTorch's eager mode reaches the chip.

A module that calls the operator goes through torch.export with every extent dynamic, then the
pipeline of any model. What export or the lowering cannot do for all extents is done for fewer:
an extent that export draws conclusions from, and then all, become static.
"""

import contextlib
import inspect
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from opennpu.compiler.frontend.archive import Archive
from opennpu.compiler.frontend.sources import SOURCES, Source
from opennpu.compiler.pipeline import Compilation
from opennpu.compiler.tensor_spec import TensorSpec
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.symbols import Ranges, Sym
from opennpu.runtime.chip import Chip
from torch._export.utils import _get_shape_env_from_gm
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import bound_sympy

REMEDY = "The operator can run on the host."
LADDER, LADDER_FACTOR = 1024, 4
"""The longest row of the first step, in elements, and how much longer that of the next one is."""
T = TypeVar("T")
Place = tuple[int, int]
"""A tensor's number among the arguments, and a dimension of it."""


def compile_operator(
    target: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    chip: str | Path | Chip,
    out: Sequence[TensorSpec] | None = None,
) -> bytes:
    """A model.npu without weights that computes the operator `target`, such as `aten.add.Tensor`.

    Tensors among `args` and `kwargs` are TensorSpecs, devices are ignored. Inputs are named
    `arg0, arg1, …` in the order of the tensors, outputs `output, output_1, …`. `out` gives the
    outputs' dtypes and layouts where they exist already. Extents other than 0 and 1 are symbols as
    far as the lowering allows; the signature tells their ranges. Raises CompileError.
    """
    call = _Call(target, args, kwargs, out)
    try:
        return _apart(lambda: _compile(call, Chip.load(chip)))
    except CompileError:
        raise
    except Exception as error:  # an operator of eager mode must reach the host then, not end the program
        what = f"operator {target}: the compiler failed: {type(error).__name__}: {error}"
        raise CompileError(Problem(what, remedy=REMEDY)) from error


def _compile(call: "_Call", chip: Chip) -> bytes:
    """The program for as many extents as can be had."""
    try:
        return _build(call, call.dynamic_places(), chip)
    except Exception as error:
        if not call.dynamic_places():
            raise
        try:
            return _build(call, set(), chip)
        except Exception:
            raise error from None


def _build(call: "_Call", dynamic: set[Place], chip: Chip) -> bytes:
    """The program for these dynamic extents.

    Rows of any length are reduced in pieces. Those of one step of the ladder 1024, 4096, … that fit
    in scratchpad get a program of their own, which takes them whole; so the length alone says how a
    row is reduced, whichever program was compiled first.
    """
    program = call.export(dynamic)
    if fixed := call.concluded_from(program):
        program = call.export(dynamic - fixed)
    try:
        data, cut = _assemble(call, program, chip, {})
    except CompileError:
        if not dynamic - fixed:
            raise
        steps = {name: _step(call.size(name)) for name in call.symbols()}
        return _assemble(call, program, chip, steps)[0]  # for a kernel that needs a bound on its rows
    if not cut:
        return data
    ranges = {name: _step(call.size(name)) for name in cut}
    data, still_cut = _assemble(call, program, chip, ranges)
    if still_cut:
        data, _ = _assemble(call, program, chip, {name: (least, None) for name, (least, _) in ranges.items()})
    return data


def _assemble(call: "_Call", program: ExportedProgram, chip: Chip, ranges: Ranges) -> tuple[bytes, set[str]]:
    """The model.npu for these ranges of symbols, and the symbols of rows that it takes in pieces."""
    archive = Archive(program, {**call.metadata(), "ranges": ranges})
    run = Compilation(chip)
    module = run.lower(archive)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operator.npu"
        signature = run.write(module, archive, path).signature
        data = path.read_bytes()
    if any(arg["kind"] == "weights" and arg["bytes"] for arg in signature["args"]):
        raise CompileError(Problem(f"operator {call.target}: it needs constants in memory", remedy=REMEDY))
    return data, {name for entry in signature["report"] for name in Sym.of(entry.get("cut", "0")).names}


def _step(size: int) -> tuple[int, int]:
    """The step of the ladder that a row is on: (least, most)."""
    most = LADDER
    while most < size:
        most *= LADDER_FACTOR
    return (1 if most == LADDER else most // LADDER_FACTOR + 1), most


class _Call:
    """An operator and its arguments, as a module to export."""

    def __init__(self, target: str, args: Sequence[Any], kwargs: Mapping[str, Any], out):
        self.target, self.out = target, out
        self._source = _source(target)
        leaves, self._tree = pytree.tree_flatten(
            (list(args), dict(kwargs)), is_leaf=lambda x: isinstance(x, TensorSpec)
        )
        self._leaves = [torch.device("meta") if isinstance(x, torch.device) else x for x in leaves]
        self.tensors = [x for x in leaves if isinstance(x, TensorSpec)]

    def dynamic_places(self) -> set[Place]:
        return {(i, d) for i, spec in enumerate(self.tensors) for d, n in enumerate(spec.sizes) if n > 1}

    def run(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, TensorSpec) else x for x in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._tree)
        results = pytree.tree_leaves(self._source.function(*args, **kwargs))
        if self.out is None:
            return results
        return [r.to(spec.dtype) for r, spec in zip(results, self.out, strict=True)]

    def export(self, dynamic: set[Place]) -> ExportedProgram:
        """Traced for these dynamic extents. Raises CompileError for what PyTorch cannot trace."""
        tensors = [torch.empty(spec.sizes, dtype=spec.dtype, device="meta") for spec in self.tensors]
        shapes = tuple(
            {d: Dim.AUTO if (i, d) in dynamic else Dim.STATIC for d in range(len(spec.sizes))}
            for i, spec in enumerate(self.tensors)
        )
        try:
            return torch.export.export(
                _Module(self.run, len(tensors)), tuple(tensors), dynamic_shapes=shapes, strict=False
            )
        except Exception as error:  # PyTorch raises anything for an operator without a meta implementation
            what = str(error).strip().partition("\n")[0]
            raise CompileError(
                Problem(f"operator {self.target}: it cannot be traced: {what}", remedy=REMEDY)
            ) from error

    def concluded_from(self, program: ExportedProgram) -> set[Place]:
        """The places of extents that tracing assumed something of which no range of a symbol says.

        Equal extents have become one symbol; what else was assumed of several (divisible, less
        than another) would not be checked when the program is bound.
        """
        environment = _get_shape_env_from_gm(program.graph_module)
        if environment is None:
            return set()
        assumed = set()
        for guard in environment.guards:
            expression = environment.replace(guard.expr)
            if not bound_sympy(expression, environment.var_to_range).is_singleton():
                assumed |= expression.free_symbols
        return {
            (i, d)
            for i, node in enumerate(program.graph.find_nodes(op="placeholder"))
            for d, extent in enumerate(node.meta["val"].shape)
            if isinstance(extent, torch.SymInt) and extent.node.expr.free_symbols & assumed
        }

    def symbols(self) -> list[str]:
        """The names that symbols may have."""
        return [f"arg{i}_{d}" for i, d in sorted(self.dynamic_places())]

    def size(self, name: str) -> int:
        """What the symbol `arg0_1` is at the moment."""
        i, d = map(int, name.removeprefix("arg").split("_"))
        return self.tensors[i].sizes[d]

    def metadata(self) -> dict[str, dict[str, list[str]]]:
        """For the importer: the names of extents `arg0_1`, and of strides `arg0_s1`."""
        inputs = {f"arg{i}": spec for i, spec in enumerate(self.tensors)}
        outputs = {f"output_{i}" if i else "output": spec for i, spec in enumerate(self.out or ())}
        return {
            "dims": {name: [f"{name}_{d}" for d in range(len(s.sizes))] for name, s in inputs.items()},
            "strides": {
                name: [_stride(name, d, spec) for d in range(len(spec.sizes))]
                for name, spec in {**inputs, **outputs}.items()
                if spec.strides is not None
            },
            "pages": list(self._source.pages),
        }


def _stride(name: str, d: int, spec: TensorSpec) -> str:
    """0 and 1 as such; 0 for a dimension of one element, of which nothing depends on it."""
    stride = spec.strides[d] if spec.sizes[d] > 1 else 0
    return str(stride) if stride in (0, 1) else f"{name}_s{d}"


class _Module(torch.nn.Module):
    """`run` as the forward of a module, whose inputs torch.export names `arg0, arg1, …`."""

    def __init__(self, run: Callable[..., list[torch.Tensor]], inputs: int):
        super().__init__()
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(f"arg{i}", kind) for i in range(inputs)]
        self.forward = lambda *tensors: run(*tensors)
        self.forward.__signature__ = inspect.Signature(names)


def _source(target: str) -> Source:
    """What the program of `aten.add.Tensor`, `aten.neg`, `opennpu.rms_norm.default` is traced from."""
    namespace, name, overload = [*target.split("."), "default"][:3]
    if (source := SOURCES.get(f"{namespace}.{name}")) is not None:
        return source
    try:
        return Source(getattr(getattr(getattr(torch.ops, namespace), name), overload))
    except AttributeError:
        raise CompileError(Problem(f"there is no operator {target}", remedy=REMEDY)) from None


_one_at_a_time = threading.Lock()


def _apart(work: Callable[[], T]) -> T:
    """The result of `work`, done on a thread of its own.

    The caller may be a kernel of PyTorch's dispatcher, whose state belongs to its thread and would
    reach into tracing: dispatch keys that are switched off, modes, the default device.
    """
    outcome: list[Callable[[], T]] = []

    def body() -> None:
        try:
            with torch.no_grad(), _quiet():
                result = work()
            outcome.append(lambda: result)
        except BaseException as error:  # raised again by the thread of the caller
            outcome.append(lambda error=error: _raise(error))

    with _one_at_a_time:
        thread = threading.Thread(target=body, name="opennpu-compile")
        thread.start()
        thread.join()
    return outcome[0]()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's log of what cannot be traced: the host runs that."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _raise(error: BaseException):
    raise error
