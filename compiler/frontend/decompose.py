"""Programs in operators that have a conversion, as far as PyTorch knows how to make them so."""

from collections.abc import Callable, Set
from typing import Any

from opennpu.compiler.conversions import CONVERSIONS
from torch._decomp import decomposition_table
from torch._export.utils import _get_shape_env_from_gm
from torch._ops import OpOverload
from torch.export import ExportedProgram, default_decompositions


def decompose(program: ExportedProgram, known: Set[OpOverload]) -> ExportedProgram:
    """The program without in-place operators, and with PyTorch's own decompositions of operators
    that are neither `known` nor in the table of conversions.

    The program itself where there are none: tracing it again takes time. Operators that PyTorch
    cannot decompose stay, for convert-torch-to-npu to report.
    """
    foreign = {node.target for node in program.graph.nodes if _is_foreign(node.target, known)}
    if not foreign:
        return program
    table = decompositions(known)
    _drop_compound_ranges(program)
    decomposed = program.run_decompositions(table)
    program.constants.update(decomposed.constants)  # where values are looked up by name
    return decomposed


def decompositions(known: Set[OpOverload]) -> dict[OpOverload, Callable]:
    """PyTorch's decompositions of operators that are neither `known` nor in the table of conversions.

    Those that export uses, and of other operators those that there are.
    """
    table = {op: how for op, how in default_decompositions().items() if _is_foreign(op, known)}
    others = {op: how for op, how in decomposition_table.items() if _is_functional(op)}
    return {op: how for op, how in others.items() if _is_foreign(op, known)} | table


def _is_functional(op: Any) -> bool:
    return isinstance(op, OpOverload) and not op._schema.is_mutable


def _is_foreign(op: Any, known: Set[OpOverload]) -> bool:
    if not isinstance(op, OpOverload) or op in known:
        return False
    return op._schema.is_mutable or str(op).removesuffix(".default") not in CONVERSIONS


def _drop_compound_ranges(program: ExportedProgram) -> None:
    """Forgets the ranges of extents such as B + 1, which follow from that of B.

    An archive that is loaded has them among those of the symbols, and PyTorch's retracing
    takes each for a symbol.
    """
    environment = _get_shape_env_from_gm(program.graph_module)
    if environment is not None:
        for extent in [e for e in environment.var_to_range if not e.is_Symbol]:
            del environment.var_to_range[extent]
