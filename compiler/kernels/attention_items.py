"""The work items of attention: which queries a core takes, and which keys they have.

An item is a block of tokens of one sequence and a group of query heads that share a KV head.
Blocks begin at fixed tokens and keys come in blocks at absolute positions, so that a row's
result depends on its own sequence only.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.kv import LARGEST_PAGE
from opennpu.compiler.kernels.scalars import Index, ceildiv, minimum
from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.dialects.isa.table import DTYPE_BYTES
from opennpu.runtime.chip import Chip


@dataclass(frozen=True)
class Shape:
    """Static parameters of one attention on one chip.

    `group` query heads go together, `parts` groups share a KV head. `tokens` of a sequence
    form a block of `rows` = tokens·group query rows; keys come `keys` at a time.
    """

    groups: int
    parts: int
    group: int
    d: int
    dv: int
    dtype: str
    tokens: int
    keys: int
    kt: int
    nt: int

    @property
    def rows(self) -> int:
        return self.tokens * self.group

    @staticmethod
    def of(
        chip: Chip, heads: int, kv_heads: int, d: int, dv: int, dtype: str, mask: str | None = None
    ) -> "Shape":
        """`mask` is the dtype of a mask, which comes in tiles of rows × keys."""
        shared, item = heads // kv_heads, ITEMSIZE[dtype]
        keys = ceildiv(chip.mx_n, LARGEST_PAGE) * LARGEST_PAGE  # whole pages of any size
        acc_row = 4 * (keys + dv)
        spm_row = item * (d + keys + dv) + 4 * 4 + (2 * keys * DTYPE_BYTES[mask] if mask else 0)
        spm = chip.spm_bytes - 2 * keys * (d + dv) * item
        rows = min(chip.acc_bytes // acc_row, spm // spm_row, chip.mx_n)
        parts = next(
            n for n in range(1, shared + 1) if shared % n == 0 and (shared // n <= rows or n == shared)
        )
        group = shared // parts
        tokens = max(1, rows // group)
        return Shape(kv_heads * parts, parts, group, d, dv, dtype, tokens, keys, chip.mx_k, chip.mx_n)


@dataclass(frozen=True)
class Item:
    """One work item at run time."""

    batch: Index  # of q and o; 0 where sequences are packed
    sequence: Index
    group: Index  # of query heads
    row: Index  # of the first token in q and o
    tokens: Index
    position: Index  # of the first token among the keys; negative where it comes before them
    keys: Index  # of the sequence
    first_key: Index  # row of the sequence's first key in k and v

    def head(self, shape: Shape) -> Index:
        """The first query head."""
        return self.group * shape.group

    def kv_head(self, shape: Shape) -> Index:
        return self.group // shape.parts


@contextmanager
def packed(
    b: TileBuilder,
    chip: Chip,
    shape: Shape,
    q_start: View,
    keys_of: Callable[[Index], tuple[Index, Index]],
) -> Iterator[Item]:
    """Sequences one behind the other: rows q_start[s] … q_start[s + 1] - 1 are the last tokens of s.

    `keys_of(s)` tells the row of its first key and their number. Items are dealt round-robin over
    groups and blocks, so that neighbours go to different cores.
    """
    with b.loop(0, b.sym(q_start.shape[0]) - 1) as sequence:
        begin = b.load_scalar(b.address(q_start, sequence), q_start.dtype)
        count = b.load_scalar(b.address(q_start, sequence + 1), q_start.dtype) - begin
        first_key, keys = keys_of(sequence)
        pieces = ceildiv(count, shape.tokens) * shape.groups
        # The first piece of a sequence goes to core `sequence · groups mod cores`: with one block each, as in
        # decode, the pieces of a sequence go on where those of the one before it end.
        shift = (b.core() + sequence * (-shape.groups % chip.cores)) % chip.cores
        with b.loop(shift, pieces, chip.cores) as piece:
            first = piece // shape.groups * shape.tokens
            yield Item(
                batch=0,
                sequence=sequence,
                group=piece % shape.groups,
                row=begin + first,
                tokens=minimum(shape.tokens, count - first),
                position=keys - count + first,
                keys=keys,
                first_key=first_key,
            )


@contextmanager
def batched(b: TileBuilder, chip: Chip, shape: Shape, q: View, k: View) -> Iterator[Item]:
    """q, k [batch, head, token, dim]: every sequence of a batch alike, its first query at its first key."""
    batch, rows, keys = b.sym(q.shape[0]), b.sym(q.shape[2]), b.sym(k.shape[2])
    blocks = ceildiv(rows, shape.tokens)
    with b.loop(b.core(), batch * blocks * shape.groups, chip.cores) as piece:
        block = piece // shape.groups
        sequence = block // blocks
        first = (block - sequence * blocks) * shape.tokens
        yield Item(
            batch=sequence,
            sequence=sequence,
            group=piece % shape.groups,
            row=first,
            tokens=minimum(shape.tokens, rows - first),
            position=first,
            keys=keys,
            first_key=0,
        )
