"""A graph of AOTAutograd: its parts compiled, what does not compile split off, the whole joined again."""

from collections.abc import Container
from dataclasses import dataclass
from itertools import count
from operator import getitem
from pathlib import Path

import torch
from opennpu.compiler.dynamo.partition import Part, join, plan
from opennpu.compiler.dynamo.programs import Program, compile_part
from opennpu.compiler.dynamo.reports import Eager, GraphReport, PartReport
from opennpu.compiler.dynamo.support import VIEWS, computes_on, is_extent, name_of, why_not
from opennpu.compiler.frontend.importer import place_of
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.runtime.chip import Chip
from torch.fx import GraphModule, Node
from torch_mlir import ir

_numbers = count()


@dataclass
class Graph:
    """One graph on its way to programs.

    kind: inference, forward or backward. params: placeholders whose tensors are packed into weight
    segments. dump_dir: where every level of IR goes.
    """

    kind: str
    module: GraphModule
    params: Container[str]
    device: torch.device
    chip: Chip
    dump_dir: Path | None = None

    def __post_init__(self):
        self._folder = self.dump_dir and self.dump_dir / f"graph{next(_numbers)}"
        self._refused: dict[Node, str] = {}
        self._programs: dict[tuple[Node, ...], tuple[Program, PartReport]] = {}

    def compile(self) -> tuple[GraphModule, GraphReport]:
        """A module that computes the same, and what became of the operators."""
        refused = None
        while refused != len(self._refused):
            refused = len(self._refused)
            steps = plan(self.module.graph, lambda node: self._why_not(node) is None)
            for part in steps:
                if isinstance(part, Part) and part.nodes not in self._programs:
                    self._compile(part)
        parts = [self._programs[step.nodes] for step in steps if isinstance(step, Part)]
        eager = [self._eager(node) for node in steps if isinstance(node, Node) and self._is_work(node)]
        programs = {nodes: program for nodes, (program, _) in self._programs.items()}
        report = GraphReport(self.kind, tuple(report for _, report in parts), tuple(eager))
        return join(self.module, steps, programs), report

    def _compile(self, part: Part) -> None:
        folder = self._folder and self._folder / f"part{len(self._programs)}"
        try:
            self._programs[part.nodes] = compile_part(part, self.params, self.device, self.chip, folder)
        except CompileError as error:
            for problem in error.problems:
                self._refused.update(dict.fromkeys(blamed(part, problem), problem.what))
        except ir.MLIRError as error:
            what = f"the compiler made invalid IR, a bug in it: {error}"
            self._refused.update(dict.fromkeys(part.nodes, what))

    def _why_not(self, node: Node) -> str | None:
        if node.target is getitem:
            return self._why_not(node.args[0])
        return self._refused.get(node) or why_not(node, self.device.type)

    def _is_work(self, node: Node) -> bool:
        """Whether the report is to tell of a node that is in no program."""
        if node.op != "call_function" or node.target is getitem or is_extent(node):
            return False
        return node.target not in VIEWS or self._why_not(node) is not None

    def _eager(self, node: Node) -> Eager:
        return Eager(
            name_of(node), place(node), self._why_not(node) or "", computes_on(node, self.device.type)
        )


def blamed(part: Part, problem: Problem) -> list[Node]:
    """The nodes of a part that a problem is about; all of them where that cannot be told."""
    named = [node for node in part.nodes if f"operator {name_of(node)}:" in problem.what]
    named = [node for node in named if place(node) == problem.where]
    places = set(problem.where.split(" + ")) - {""}
    here = [node for node in part.nodes if place(node) in places]
    work = [node for node in here if node.target not in VIEWS]
    taking_extents = [node for node in part.nodes if any(map(is_extent, node.all_input_nodes))]
    return named or work or here or taking_extents or list(part.nodes)


def place(node: Node) -> str:
    """`layers.0.mlp (model.py:12)`, as problems tell it."""
    path, line = place_of(node)
    source = ":".join(map(str, line)) if line else ""
    return f"{path} ({source})" if path and source else path or source
