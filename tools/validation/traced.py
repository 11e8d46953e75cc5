"""SGLang's own model class in PyTorch on the host, node by node: the reference of layers and ops.

It is the traced program (model.pt) before the compiler sees it, run by PyTorch's kernels in any float
dtype. What a module returns are the values made in it that are read outside of it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from opennpu.compiler.frontend.archive import Archive, tensors
from opennpu.compiler.frontend.importer import place_of, simplify
from opennpu.compiler.frontend.ops import KvStore, kv_store
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node

CASTS = (torch.ops.aten.to, torch.ops.aten._to_copy)


class Traced:
    """An archive's program, run in a float dtype: `run(inputs, …)`."""

    def __init__(self, archive: Archive, dtype: torch.dtype):
        simplify(archive.program.graph)
        self.program, self.dtype = archive.program, dtype
        self.values = {name: self._cast(value) for name, value in tensors(archive.program).items()}
        self.results = _results_of_modules(archive.program.graph.nodes)

    @torch.inference_mode()
    def run(
        self, inputs: Mapping[str, Tensor], store: KvStore, wanted: Iterable[str]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Those of the wanted results `path#r` that modules have, and the first output, `logits`."""
        nodes = {self.results[name]: name for name in wanted if name in self.results}
        runner = _Runner(self, nodes)
        specs = self.program.graph_signature.input_specs
        arguments = [
            inputs[spec.arg.name] if spec.kind is InputKind.USER_INPUT else self.values[spec.target]
            for spec in specs
        ]
        with kv_store(store):
            logits, *_ = runner.run(*arguments)
        return runner.found, logits

    def _cast(self, value: Any) -> Any:
        """Tensors and dtypes of bfloat16 or float32 weights in the dtype of the run."""
        if isinstance(value, Tensor):
            return value.to(self.dtype) if value.dtype == torch.bfloat16 else value
        return self.dtype if value is torch.bfloat16 else value


class _Runner(Interpreter):
    """Keeps copies of the values of some nodes: a later node may write in place."""

    def __init__(self, traced: Traced, nodes: Mapping[Node, str]):
        super().__init__(traced.program.graph_module)
        self.traced, self.nodes = traced, nodes
        self.found: dict[str, Tensor] = {}

    def run_node(self, node: Node) -> Any:
        value = super().run_node(node)
        if node in self.nodes:
            self.found[self.nodes[node]] = value.clone()
        return value

    def call_function(self, target, args, kwargs):
        cast = self.traced._cast
        args = tuple(a if isinstance(a, Tensor) else cast(a) for a in args)
        kwargs = {key: a if isinstance(a, Tensor) else cast(a) for key, a in kwargs.items()}
        return super().call_function(target, args, kwargs)


def _results_of_modules(nodes: Iterable[Node]) -> dict[str, Node]:
    """`path#r` → the node, of every module."""
    counts: dict[str, int] = {}
    results: dict[str, Node] = {}
    for node in nodes:
        path = place_of(node)[0]
        if not path or not isinstance(node.meta.get("val"), Tensor) or _is_no_cast(node):
            continue
        inside = f"{path}."
        users = [place_of(user)[0] for user in _readers(node)]
        if any(user != path and not user.startswith(inside) for user in users):
            results[f"{path}#{counts.setdefault(path, 0)}"] = node
            counts[path] += 1
    return results


def _readers(node: Node) -> Iterator[Node]:
    for user in node.users:
        if _is_no_cast(user):
            yield from _readers(user)
        else:
            yield user


def _is_no_cast(node: Node) -> bool:
    """A conversion to the dtype that the value has: no result of its module, but its operand."""
    if getattr(node.target, "overloadpacket", None) not in CASTS:
        return False
    return node.meta["val"].dtype == node.args[0].meta["val"].dtype
