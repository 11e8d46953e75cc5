"""Values for the operands of an op: floats are normal, indices are within what they index."""

from collections.abc import Callable, Sequence

import torch
from opennpu.compiler.interpreters.table import ELEMENTS
from opennpu.compiler.rewriting import attr
from opennpu.tools.validation.one_op import PAGE_SIZE, PAGES
from torch import Generator, Tensor
from torch_mlir import ir

Filler = Callable[[Generator, ir.Operation, list[Tensor], int], Tensor]
"""(generator, op, the operands filled with anything, which one) → its values."""


def values(
    op: ir.Operation, shapes: Sequence[tuple[Sequence[int], str]], generator: Generator
) -> list[Tensor]:
    """A tensor for each operand, of these extents and element types."""
    filled = [anything(shape, element, generator) for shape, element in shapes]
    for place, fill in FILLERS.get(op.name, {}).items():
        if place < len(filled):
            filled[place] = (
                fill(generator, op, filled, place).to(filled[place].dtype).reshape(filled[place].shape)
            )
    return filled


def anything(shape: Sequence[int], element: str, generator: Generator) -> Tensor:
    dtype = ELEMENTS[element]
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if not dtype.is_floating_point:
        return torch.randint(-60, 60, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator).to(dtype)


def _rows_of(place: int, dim: int = 0) -> Filler:
    """Indices into a dimension of another operand."""
    return lambda generator, op, filled, own: torch.randint(
        0, filled[place].shape[dim], filled[own].shape, generator=generator
    )


def _permutation(generator, op, filled, own) -> Tensor:
    return torch.randperm(filled[own].numel(), generator=generator)


def _slots(generator, op, filled, own) -> Tensor:
    return torch.randperm(PAGE_SIZE * PAGES, generator=generator)[: filled[own].numel()]


def _pages(generator, op, filled, own) -> Tensor:
    return torch.randperm(PAGES, generator=generator)[: filled[own].numel()]


def _starts(total_of: int) -> Filler:
    """Ascending from 0 to the rows of an operand: sequences of about one length."""

    def fill(generator, op, filled, own):
        count, total = filled[own].numel() - 1, filled[total_of].shape[0]
        return torch.arange(count + 1) * total // count

    return fill


def _lengths(generator, op, filled, own) -> Tensor:
    """Of sequences: their new tokens, and some that lie in the pages already."""
    count, total = filled[own].numel(), filled[0].shape[0]
    new = (torch.arange(count + 1) * total // count).diff()
    room = filled[1].shape[1] * PAGE_SIZE
    return (new + torch.randint(0, PAGE_SIZE, (count,), generator=generator)).clamp_max(room)


def _expert_ids(generator, op, filled, own) -> Tensor:
    tokens, k = filled[own].shape
    return torch.rand(tokens, attr(op, "experts"), generator=generator).argsort(-1)[:, :k]


def _offsets(generator, op, filled, own) -> Tensor:
    groups, rows = filled[own].numel() - 1, filled[0].shape[0]
    return torch.arange(groups + 1) * rows // groups


FILLERS: dict[str, dict[int, Filler]] = {
    "npu.gather": {1: _rows_of(0)},
    "npu.take": {1: _rows_of(0, -1)},
    "npu.rope": {1: _rows_of(2)},
    "npu.kv_write": {2: _slots},
    "npu.rope_kv_write": {1: _rows_of(2), 3: _slots},
    "npu.paged_attention": {1: _pages, 2: _lengths, 3: _starts(0)},
    "npu.varlen_attention": {3: _starts(0), 4: _starts(1)},
    "npu.sort_experts": {0: _expert_ids},
    "npu.scatter_rows": {1: _permutation},
    "npu.put_rows": {1: _permutation},
    "npu.grouped_matmul": {2: _offsets, 3: _permutation},
    "npu.combine_rows": {1: _permutation},
}
