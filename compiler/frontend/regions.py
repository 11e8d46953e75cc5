"""Parts of a program that PyTorch sets apart because a mode was switched there, as parts like any other."""

import operator

import torch
from opennpu.dialects.diagnostics import CompileError, Problem
from torch.export import ExportedProgram
from torch.fx import GraphModule

higher_order = torch.ops.higher_order

ARGUMENTS = {
    higher_order.wrap_with_set_grad_enabled: ("enabled",),
    higher_order.wrap_with_autocast: ("device", "dtype", "enabled", "cache"),
}
"""Operator → its arguments before the region and the region's inputs."""


def inline_regions(program: ExportedProgram) -> dict[str, str]:
    """Puts regions without gradients, or with automatic casts turned off, in place of their operators.

    Gives {the name of a region's result: of what it is now}. Raises CompileError for automatic casts.
    """
    module = program.graph_module
    renamed = _inline(module)
    if renamed:
        module.delete_all_unused_submodules()  # the importer takes all there are
        module.recompile()
    return renamed


def _inline(module: GraphModule) -> dict[str, str]:
    renamed = {}
    for node in [node for node in module.graph.nodes if node.target in ARGUMENTS]:
        names = ARGUMENTS[node.target]
        _check(dict(zip(names, node.args, strict=False)))
        region, *inputs = node.args[len(names) :]
        body = getattr(module, region.target)
        _inline(body)
        values = dict(zip(body.graph.find_nodes(op="placeholder"), inputs, strict=True))
        with module.graph.inserting_before(node):
            results = module.graph.graph_copy(body.graph, values)
        for user in list(node.users):
            assert user.target is operator.getitem
            result = results[user.args[1]]
            user.replace_all_uses_with(result)
            renamed[user.name] = result.name
            module.graph.erase_node(user)
        module.graph.erase_node(node)
        if not region.users:
            module.graph.erase_node(region)
    return renamed


def _check(switched: dict) -> None:
    if "cache" in switched and switched["enabled"]:
        raise CompileError(
            Problem(
                f"the model runs under torch.autocast to {switched['dtype']}",
                remedy="Export it in that dtype instead.",
            )
        )
