"""A part of a functional FX graph, as AOTAutograd makes it, to the torch dialect."""

from collections.abc import Container, Iterable

import sympy
import torch
from opennpu.compiler.frontend.importer import Locations, bounds, extent_of, extent_text, simplify
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.symbols import Sym, set_symbol_ranges
from torch.fx import Graph, Node
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_importer import FxImporter


def import_graph(graph: Graph, params: Container[Node], context: ir.Context) -> ir.Module:
    """The graph as `func.func @main` in the raw torch dialect, as `importer.import_program` makes it.

    Placeholders are tensors and integers, whose `meta["val"]` is what PyTorch traced them with. Those in
    `params` are named param0, param1, … `{npu.param = name}`, the other tensors arg0, arg1, …
    `{npu.input = name, npu.dims = […]}`; an integer is `{npu.extent = "2*s0"}`. Results are output,
    output_1, … . Symbols are named s0, s1, … in the order that they appear; each must be what some
    input measures.

    Changes the graph. Raises CompileError.
    """
    simplify(graph)
    torch_dialect.register_dialect(context)
    importer = FxImporter(context=context)
    importer._cc = Locations(context)
    placeholders = graph.find_nodes(op="placeholder")
    symbols = _Symbols(placeholders)
    inputs = [node for node in placeholders if node not in params and _is_tensor(node)]
    symbols.check_measured(inputs)
    described = {
        **{node: symbols.describe_extent(node) for node in placeholders if not _is_tensor(node)},
        **{node: {"npu.param": f"param{i}"} for i, node in enumerate(n for n in placeholders if n in params)},
        **{node: symbols.describe_input(node, f"arg{i}") for i, node in enumerate(inputs)},
    }
    with context, ir.Location.unknown():
        try:
            function = importer.import_stateless_graph(graph)
        except (NotImplementedError, TypeError, KeyError, AssertionError) as error:
            raise CompileError(f"the graph cannot be imported: {error}") from error
        _describe(function, [described[node] for node in placeholders])
        set_symbol_ranges(importer.module, symbols.ranges)
    return importer.module


class _Symbols:
    """Short names for the symbols of a graph's placeholders."""

    def __init__(self, placeholders: list[Node]):
        values = [node.meta["val"] for node in placeholders]
        self._names: dict[sympy.Symbol, sympy.Symbol] = {}
        self.ranges: dict[str, tuple[int, int | None]] = {}
        for extent in (extent for value in values for extent in _extents(value)):
            for symbol in sorted(extent_of(extent).free_symbols - self._names.keys(), key=str):
                self._names[symbol] = sympy.Symbol(f"s{len(self._names)}")
                self.ranges[str(self._names[symbol])] = bounds(_range(extent, symbol))

    def describe_extent(self, node: Node) -> dict[str, str | list[str]]:
        return {"npu.extent": self._texts(node)[0]}

    def describe_input(self, node: Node, name: str) -> dict[str, str | list[str]]:
        return {"npu.input": name, "npu.dims": self._texts(node)}

    def check_measured(self, inputs: Iterable[Node]) -> None:
        """CompileError unless every symbol is among the extents of a tensor."""
        measured = {name for node in inputs for text in self._texts(node) for name in Sym.of(text).names}
        if missing := sorted(self.ranges.keys() - measured):
            raise CompileError(Problem(f"{', '.join(missing)} is the extent of no tensor that goes in"))

    def _texts(self, node: Node) -> list[str]:
        extents = _extents(node.meta["val"])
        return [extent_text(node.name, extent_of(e).xreplace(self._names)) for e in extents]


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta["val"], torch.Tensor)


def _extents(value: torch.Tensor | torch.SymInt | int) -> list[torch.SymInt | int]:
    return list(value.shape) if isinstance(value, torch.Tensor) else [value]


def _range(extent: torch.SymInt, symbol: sympy.Symbol):
    return extent.node.shape_env.var_to_range.get(symbol)


def _describe(function, arguments: list[dict[str, str | list[str]]]) -> None:
    """Gives every argument and result of @main its name."""
    names = ["output", *(f"output_{i}" for i in range(1, len(ir.FunctionType(function.type).results)))]
    for key, described in (("arg_attrs", arguments), ("res_attrs", [{"npu.output": n} for n in names])):
        function.attributes[key] = ir.ArrayAttr.get([_attributes(entry) for entry in described])


def _attributes(described: dict[str, str | list[str]]) -> ir.DictAttr:
    text = ir.StringAttr.get
    return ir.DictAttr.get(
        {
            key: text(value) if isinstance(value, str) else ir.ArrayAttr.get([text(v) for v in value])
            for key, value in described.items()
        }
    )
