"""Tokens in and out: rows of a table, and the index of a row's greatest element."""

import torch
from opennpu.compiler.frontend.ops.library import FLOATS, INTEGERS, check, check_dtype, check_rank, operator
from torch import Tensor


def _embedding(table, ids):
    check_dtype("embedding", "table", table, FLOATS)
    check_rank("embedding", "table", table, 2, 2)
    check_dtype("embedding", "ids", ids, INTEGERS)
    return table.new_empty(*ids.shape, table.shape[1])


@operator("embedding(Tensor table, Tensor ids) -> Tensor", _embedding)
def embedding(table: Tensor, ids: Tensor) -> Tensor:
    """table[ids]: a row for every id.

    table[R, N] float32 or bfloat16; ids[...] int64 or int32, 0 ≤ id < R. → [..., N] of the
    table's dtype. TypeError for another dtype, ValueError for a table of other rank,
    IndexError (on the device: the launch fails) for an id outside the table.
    """
    return torch.nn.functional.embedding(ids, table)


def _argmax(x):
    check_dtype("argmax", "x", x, (*FLOATS, *INTEGERS))
    check_rank("argmax", "x", x, 1)
    check(x.shape[-1] > 0, "opennpu::argmax: the last extent of x is 0, expected at least 1")
    return x.new_empty(x.shape[:-1], dtype=torch.int64)


@operator("argmax(Tensor x) -> Tensor", _argmax)
def argmax(x: Tensor) -> Tensor:
    """The index of the greatest element of the last dimension: the first of equals; of the first NaN.

    x[..., N] float32, bfloat16, int64 or int32, N ≥ 1 → [...] int64. TypeError for another
    dtype, ValueError for N = 0.
    """
    return x.argmax(-1)
