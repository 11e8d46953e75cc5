"""From an exported program to the torch dialect, with weights bound by name."""

import re
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from opennpu.compiler.frontend.archive import Archive, memory, tensors
from opennpu.compiler.frontend.decompose import decompose
from opennpu.compiler.frontend.regions import inline_regions
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.symbols import Sym, set_symbol_ranges
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument
from torch.fx import Graph, Node
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_importer import ContextCache, FxImporter, FxImporterHooks

aten = torch.ops.aten

CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten._assert_async.msg,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
"""Nodes that compute nothing."""

IDENTITIES = {
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,  # programs are exported for inference
}
"""Nodes whose result is their first argument."""

INPUT_KINDS = {InputKind.USER_INPUT, InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}


def import_program(archive: Archive, context: ir.Context) -> ir.Module:
    """The program as `func.func @main` in the raw torch dialect.

    Arguments are the user inputs `{npu.input = name, npu.dims = [extent, …]}`, then the
    weights, buffers and constants that are used `{npu.param = name}`, whose values stay
    outside. Results are `{npu.output = name}`. Each op's location is its module path over
    its line of source. The module attribute `npu.symbols` gives the range of every
    symbol. Tensors that share memory are one argument, under the first name. An input or output
    that the archive gives strides also has `npu.strides`, one that it names among its pages `npu.kv`.

    Changes archive.program. Raises CompileError.
    """
    for old, new in inline_regions(archive.program).items():
        _rename_output(archive.program, old, new)
    program = decompose(archive.program, CHECKS | IDENTITIES)
    _check_signature(program)
    _simplify(program)
    torch_dialect.register_dialect(context)
    hooks = _NamedArguments(program)
    importer = FxImporter(context=context, hooks=hooks)
    importer._cc = Locations(context)
    with context, ir.Location.unknown():
        try:
            function = importer.import_program(program)
        except (NotImplementedError, TypeError, KeyError) as error:
            raise CompileError(f"the program cannot be imported: {error}") from error
        strides = archive.metadata.get("strides", {})
        symbols = _Symbols(program, archive.metadata.get("dims", {}), strides)
        ranges = {name: tuple(bounds) for name, bounds in archive.metadata.get("ranges", {}).items()}
        pages = archive.metadata.get("pages", [])
        outputs = _output_names(archive)
        describe_function(function, symbols.inputs, list(hooks.arguments), outputs, strides, pages)
        narrowed = {name: ranges.get(name, bounds) for name, bounds in symbols.ranges.items()}
        set_symbol_ranges(importer.module, narrowed)
    return importer.module


class _NamedArguments(FxImporterHooks):
    """Turns each weight, buffer and constant into an argument of the function."""

    def __init__(self, program: ExportedProgram):
        self.arguments: dict[str, ir.Value] = {}
        self._first_names: dict[tuple, str] = {}
        values = tensors(program)
        for spec in program.graph_signature.input_specs:
            if spec.target in values:
                self._first_names.setdefault(memory(values[spec.target]), spec.target)

    def resolve_input(self, importer, value, info):
        name = self._first_names[memory(value)]
        if name not in self.arguments:
            location = ir.Location.name(name, context=importer._c)
            self.arguments[name] = importer._b.add_argument(info.ir_type, location)
        return self.arguments[name]


class Locations(ContextCache):
    """Locations such as `loc("model.layers.0.mlp"("sglang/srt/models/llama.py":118:0))`."""

    def get_node_location(self, node):
        path, line = place_of(node)
        source = ir.Location.file(*line, 0, context=self._c) if line else ir.Location.unknown(self._c)
        return ir.Location.name(path, source, context=self._c) if path else source


FRAME = re.compile(r'File "(?:.*/(?:site|dist)-packages/)?([^"]+)", line (\d+)')
OWN_FRAME = "opennpu/"  # the operator's wrapper; its caller says more
DYNAMO_ROOT = re.compile(r"^L\['\w+'\]\.?")


def place_of(node: Node) -> tuple[str, tuple[str, int] | None]:
    """Module path, "" where unknown, and file and line of the source."""
    frames = FRAME.findall(node.meta.get("stack_trace") or "")
    frames = [frame for frame in frames if not frame[0].startswith(OWN_FRAME)] or frames
    modules = node.meta.get("nn_module_stack") or {}
    paths = (DYNAMO_ROOT.sub("", path) for path, _ in reversed(modules.values()))
    path = next((path for path in paths if not path.startswith("_")), "")
    return path, (frames[-1][0], int(frames[-1][1])) if frames else None


class _Symbols:
    """Readable names for the symbols of a program.

    inputs: {input name: extents as text}; ranges: {symbol: (lower, upper or None)}.
    A symbol is named by the recorded extents where there are any, else after the first
    input dimension it measures: `x_0`. Symbols of strides are named where they are recorded.
    """

    def __init__(
        self,
        program: ExportedProgram,
        recorded: Mapping[str, list[str]],
        strides: Mapping[str, list[str]],
    ):
        shapes = _user_input_shapes(program)
        names: dict[sympy.Expr, sympy.Symbol] = {}
        for input_name, shape in shapes.items():
            for i, extent in enumerate(shape):
                if isinstance(extent, sympy.Symbol) and extent not in names:
                    name = recorded[input_name][i] if input_name in recorded else f"{input_name}_{i}"
                    names[extent] = sympy.Symbol(name)
        self.inputs = {
            input_name: [extent_text(input_name, extent.xreplace(names)) for extent in shape]
            for input_name, shape in shapes.items()
        }
        ranges = program.range_constraints
        self.ranges = {str(name): bounds(ranges.get(symbol)) for symbol, name in names.items()}
        steps = {name for extents in strides.values() for e in extents for name in Sym.of(e).names}
        self.ranges.update((name, (1, None)) for name in sorted(steps - self.ranges.keys()))


def _user_input_shapes(program) -> dict[str, list[sympy.Expr]]:
    inputs = set(program.graph_signature.user_inputs)
    return {
        node.name: [extent_of(d) for d in node.meta["val"].shape]
        for node in program.graph.find_nodes(op="placeholder")
        if node.name in inputs and isinstance(node.meta["val"], torch.Tensor)
    }


def extent_of(d: int | torch.SymInt) -> sympy.Expr:
    return d.node.expr if isinstance(d, torch.SymInt) else sympy.Integer(d)


def bounds(limits) -> tuple[int, int | None]:
    """torch.export's range with 2 as the least bound widened to 1.

    torch.export traces with extents of at least 2, because 0 and 1 broadcast; it reports
    that as the lower bound of what the user called just dynamic. Nothing here depends on it.
    """
    if limits is None:
        return 1, None
    lower = int(limits.lower)
    upper = None if limits.upper > 2**60 else int(limits.upper)
    return (1 if lower == 2 else lower), upper


def extent_text(input_name: str, extent: sympy.Expr) -> str:
    try:
        return str(Sym.of(str(extent)))
    except ValueError as error:
        raise CompileError(Problem(f"input {input_name}: extent {error}")) from None


def _check_signature(program: ExportedProgram) -> None:
    signature = program.graph_signature
    mutated = [*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()]
    problems = [
        Problem(f"the model changes {name} in place", remedy="Return the new value as an output instead.")
        for name in mutated
    ]
    for spec in signature.input_specs:
        if spec.kind not in INPUT_KINDS:
            problems.append(Problem(f"inputs of kind {spec.kind.name} are not supported: {spec.arg.name}"))
    if problems:
        raise CompileError(*problems)


def simplify(graph: Graph) -> dict[str, str]:
    """Drops checks and identities; {the name of an identity: of what it stood for}."""
    renamed = {}
    for node in list(graph.nodes):
        if node.target in IDENTITIES:
            node.replace_all_uses_with(node.args[0])
            renamed[node.name] = node.args[0].name
        if node.target in CHECKS | IDENTITIES:
            graph.erase_node(node)
        elif _returns_list(node.target):
            node.meta["val"] = list(node.meta["val"])  # a loaded archive has a tuple there
    graph.eliminate_dead_code()
    return renamed


def _simplify(program: ExportedProgram) -> None:
    """Drops checks and identities, and lets constants count as buffers, which have names."""
    for old, new in simplify(program.graph).items():
        _rename_output(program, old, new)
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR and isinstance(spec.arg, TensorArgument):
            spec.kind, spec.persistent = InputKind.BUFFER, False


def _rename_output(program: ExportedProgram, old: str, new: str) -> None:
    for spec in program.graph_signature.output_specs:
        if isinstance(spec.arg, TensorArgument) and spec.arg.name == old:
            spec.arg = TensorArgument(new)


def _returns_list(target: Any) -> bool:
    if not isinstance(target, torch._ops.OpOverload) or len(target._schema.returns) != 1:
        return False
    return isinstance(target._schema.returns[0].type, torch.ListType)


def _output_names(archive: Archive) -> list[str]:
    """As recorded, else the keys of a dictionary, else output, output_1, …"""
    count = len(archive.program.graph_signature.user_outputs)
    keys = archive.program.call_spec.out_spec.context
    for names in (archive.metadata.get("outputs"), keys):
        if isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names):
            return names
    return ["output", *(f"output_{i}" for i in range(1, count))]


def describe_function(
    function,
    inputs: Mapping[str, list[str]],
    params: list[str],
    outputs: list[str],
    strides: Mapping[str, list[str]],
    pages: list[str],
) -> None:
    """Give @main its full type, and every argument and result its name, and its strides if it has any.

    The two inputs in `pages` are told to be the KV pages of the launch.
    """
    arguments = function.body.blocks[0].arguments
    results = ir.FunctionType(function.type).results
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get([argument.type for argument in arguments], results)
    )
    text = ir.StringAttr.get

    def texts(extents: list[str]) -> ir.ArrayAttr:
        return ir.ArrayAttr.get([text(extent) for extent in extents])

    def layout(name: str) -> dict[str, ir.ArrayAttr]:
        return {"npu.strides": texts(strides[name])} if name in strides else {}

    kinds = {name: {"npu.kv": text(kind)} for name, kind in zip(pages, "kv", strict=False)}
    described = [
        {"npu.input": text(name), "npu.dims": texts(dims), **layout(name), **kinds.get(name, {})}
        for name, dims in inputs.items()
    ]
    described += [{"npu.param": text(name)} for name in params]
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(d) for d in described])
    function.attributes["res_attrs"] = ir.ArrayAttr.get(
        [ir.DictAttr.get({"npu.output": text(name), **layout(name)}) for name in outputs]
    )
