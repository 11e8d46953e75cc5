"""Conversions that replace elements, against PyTorch, with a dynamic extent."""

import torch
from conversion_harness import Program, check

ROWS = torch.export.Dim("R", min=3, max=64)


def spread(n, y):
    return n[None, :, None].expand_as(y)


OPERATORS = [
    lambda x, y, n: x.index_copy(1, n, y),
    lambda x, y, n: torch.ops.aten.index_put(x, [None, n], y),
    lambda x, y, n: torch.ops.aten.index_put(x, [None, n], y[:, :1]),
    lambda x, y, n: x.index_put((n,), y[0, 0]),
    lambda x, y, n: x.transpose(1, 2).index_copy(2, n, y.transpose(1, 2)),
    lambda x, y, n: x.index_copy(1, n, y).int().index_copy(1, n, y.int()),
    lambda x, y, n: torch.ops.aten.index_put(x, [None, n - 3], y),
    lambda x, y, n: x.scatter(1, spread(n, y), y),
    lambda x, y, n: x.scatter(1, spread(n, y), 2.5),
    lambda x, y, n: x.scatter(2, n.expand(*x.shape[:2], 2), x),
    lambda x, y, n: x.scatter_add(1, spread(n, y), y),
    lambda x, y, n: x.scatter_add(1, spread(n * 0, y), y),
    lambda x, y, n: x.int().scatter_add(1, spread(n, y), y.int()),
    lambda x, y, n: torch.slice_scatter(x, y, 1, 2, 4),
    lambda x, y, n: torch.slice_scatter(x, y, 1, -2),
    lambda x, y, n: torch.slice_scatter(x, y, 1, 0, 2),
    lambda x, y, n: torch.select_scatter(x, y[:, 0], 1, -2),
]


def arguments(rows: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x, y = (torch.randn(rows, n, 4, generator=generator) for n in (6, 2))
    return [x, y, torch.tensor([2, 0])]


def test_scatter():
    check(Program(OPERATORS), arguments(5), (({0: ROWS}, {0: ROWS}, None),), [arguments(3)])
