"""Which nodes of a graph the chip computes, and why not the others."""

import operator
from collections.abc import Iterable
from typing import Any

import torch
from opennpu.compiler.conversions import CONVERSIONS
from opennpu.compiler.frontend.importer import CHECKS, IDENTITIES
from opennpu.runtime.dtypes import DTYPES
from torch._ops import OpOverload
from torch.fx import Node

aten = torch.ops.aten

VIEWS = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.expand.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    operator.getitem,
    *IDENTITIES,
    *CHECKS,
}
"""Nodes that compute nothing: alone, they are no reason for a program."""

_DTYPES = set(DTYPES.values())


def is_extent(node: Node) -> bool:
    """True for a node that computes a number from sizes: the host does it, programs know it by symbols."""
    return isinstance(node.meta.get("val"), int | torch.SymInt | torch.SymBool | bool)


def why_not(node: Node, device: str) -> str | None:
    """Why a node cannot be part of a program for this type of device; None where it can."""
    if node.op != "call_function":
        return "it is no operator"
    if not isinstance(node.target, OpOverload):
        return "it is no operator of PyTorch's table"
    if name_of(node) not in CONVERSIONS and node.target not in CHECKS | IDENTITIES:
        return "there is no conversion for it"
    return _tensors_why_not(node, device)


def computes_on(node: Node, device: str) -> bool:
    """True for a node whose result lies on this type of device."""
    return any(tensor.device.type == device for tensor in _tensors(node.meta.get("val")))


def name_of(node: Node) -> str:
    """`aten.add.Tensor`, `aten.mm`: as in the table of conversions and in messages."""
    return str(node.target).removesuffix(".default")


def _tensors_why_not(node: Node, device: str) -> str | None:
    for tensor in _tensors(node.meta.get("val")):
        if tensor.device.type != device:
            return f"its result is on {tensor.device}"
    for tensor in _tensors([node.meta.get("val"), *(n.meta.get("val") for n in node.all_input_nodes)]):
        if tensor.dtype not in _DTYPES:
            return f"the dtype {str(tensor.dtype).removeprefix('torch.')}"
        if tensor.layout is not torch.strided:
            return f"the layout {tensor.layout}"
        if tensor.device.type != device and tensor.dim() > 0:
            return f"an operand is on {tensor.device}"
    return None


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
