"""The work items of attention: which queries a core takes, and which keys they have.

An item is some blocks of tokens of one sequence and a group of query heads that share a KV head.
Blocks begin at fixed tokens and keys come in blocks at absolute positions, so that a row's
result depends on its own sequence only.
"""

from collections.abc import Callable
from dataclasses import dataclass

from opennpu.compiler.kernels.builder import TileBuilder
from opennpu.compiler.kernels.kv import LARGEST_PAGE
from opennpu.compiler.kernels.scalars import Index, ceildiv, maximum, minimum
from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.dialects.isa.table import DTYPE_BYTES
from opennpu.runtime.chip import Chip

BUFFERS_BYTES = 4096
"""For what is small or lost to alignment."""

MOST_BLOCKS = 4
"""Of an item: what keys move is divided by as many. Each is code of its own."""


@dataclass(frozen=True)
class Shape:
    """Static parameters of one attention on one chip.

    `group` query heads go together, `parts` groups share a KV head. `tokens` of a sequence
    form a block of `rows` = tokens·group query rows, and up to `blocks` an item; keys come `keys` at a time,
    and blocks take turns with `scores` tiles of rows × keys.
    """

    groups: int
    parts: int
    group: int
    d: int
    dv: int
    dtype: str
    tokens: int
    blocks: int
    keys: int
    kt: int
    nt: int

    @property
    def rows(self) -> int:
        return self.tokens * self.group

    @property
    def item_rows(self) -> int:
        return self.blocks * self.rows

    @property
    def scores(self) -> int:
        return min(self.blocks, 2)

    @staticmethod
    def of(
        chip: Chip, heads: int, kv_heads: int, d: int, dv: int, dtype: str, mask: str | None = None
    ) -> "Shape":
        """The most keys and blocks that leave half of a stationary tile's width in rows, so that products are
        not bound by loading tiles. `mask` is the dtype of a mask, which comes in tiles of rows × keys.
        """
        page = ceildiv(chip.mx_n, LARGEST_PAGE) * LARGEST_PAGE  # whole pages of any size
        sizes = [(keys, blocks) for keys in (2 * page, page) for blocks in (MOST_BLOCKS, MOST_BLOCKS // 2)]
        fit = [(*size, _fitting_rows(chip, d, dv, dtype, mask, *size)) for size in (*sizes, (page, 1))]
        keys, blocks, rows = next((f for f in fit if 2 * f[2] > chip.mx_n), fit[-1])
        shared = heads // kv_heads
        parts = next(
            n for n in range(1, shared + 1) if shared % n == 0 and (shared // n <= rows or n == shared)
        )
        group = shared // parts
        tokens = max(1, rows // group)
        return Shape(kv_heads * parts, parts, group, d, dv, dtype, tokens, blocks, keys, chip.mx_k, chip.mx_n)


def _fitting_rows(chip: Chip, d: int, dv: int, dtype: str, mask: str | None, keys: int, blocks: int) -> int:
    """Rows of a block, at most the width of a stationary tile; `attention_loops.py` allocates the rest."""
    item, scores = ITEMSIZE[dtype], min(blocks, 2)
    kinds = (blocks, 1) if blocks > 1 else (1,)  # of items, each with buffers of its own
    tiles = sum(kinds) + scores - 1  # of rows × keys in scratchpad
    acc_row = 4 * (scores * keys + blocks * dv)
    spm_row = sum(kinds) * (item * (d + dv) + 3 * 4) + tiles * keys * (item + DTYPE_BYTES.get(mask, 0))
    spm = chip.spm_bytes - 2 * (len(kinds) + scores - 1) * keys * (d + dv) * item - BUFFERS_BYTES
    return min(chip.acc_bytes // acc_row, spm // spm_row, chip.mx_n)


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


Make = Callable[[Item, int], None]
"""Makes the code of an item of up to so many blocks."""


def packed(
    b: TileBuilder,
    chip: Chip,
    shape: Shape,
    q_start: View,
    keys_of: Callable[[Index], tuple[Index, Index]],
    make: Make,
) -> None:
    """Sequences one behind the other: rows q_start[s] … q_start[s + 1] - 1 are the last tokens of s.

    `keys_of(s)` tells the row of its first key and their number.
    """
    with b.loop(0, b.sym(q_start.shape[0]) - 1) as sequence:
        begin = b.load_scalar(b.address(q_start, sequence), q_start.dtype)
        count = b.load_scalar(b.address(q_start, sequence + 1), q_start.dtype) - begin
        first_key, keys = keys_of(sequence)
        blocks = _item_blocks(chip, shape, 1, count)
        step = blocks * shape.tokens
        # The first piece of a sequence goes to core `sequence · groups mod cores`: with one item a group, as
        # in decode, the pieces of a sequence go on where those of the one before it end.
        shift = (b.core() + sequence * (-shape.groups % chip.cores)) % chip.cores

        def item(piece: Index) -> Item:
            first = piece // shape.groups * step
            return Item(
                batch=0,
                sequence=sequence,
                group=piece % shape.groups,
                row=begin + first,
                tokens=minimum(step, count - first),
                position=keys - count + first,
                keys=keys,
                first_key=first_key,
            )

        _deal(b, chip, shape, shift, blocks, ceildiv(count, step) * shape.groups, item, make)


def batched(b: TileBuilder, chip: Chip, shape: Shape, q: View, k: View, make: Make) -> None:
    """q, k [batch, head, token, dim]: every sequence of a batch alike, its first query at its first key."""
    batch, rows, keys = b.sym(q.shape[0]), b.sym(q.shape[2]), b.sym(k.shape[2])
    blocks = _item_blocks(chip, shape, batch, rows)
    step = blocks * shape.tokens
    items = ceildiv(rows, step)

    def item(piece: Index) -> Item:
        number = piece // shape.groups
        sequence = number // items
        first = (number - sequence * items) * step
        return Item(
            batch=sequence,
            sequence=sequence,
            group=piece % shape.groups,
            row=first,
            tokens=minimum(step, rows - first),
            position=first,
            keys=keys,
            first_key=0,
        )

    _deal(b, chip, shape, b.core(), blocks, batch * items * shape.groups, item, make)


def _item_blocks(chip: Chip, shape: Shape, batch: Index, tokens: Index) -> Index:
    """Blocks of an item: as many as leave two items for every core, if any do."""
    blocks = batch * ceildiv(tokens, shape.tokens) * shape.groups
    return maximum(minimum(blocks // (2 * chip.cores), shape.blocks), 1)


def _deal(
    b: TileBuilder,
    chip: Chip,
    shape: Shape,
    core: Index,
    blocks: Index,
    pieces: Index,
    item: Callable[[Index], Item],
    make: Make,
) -> None:
    """The pieces of one core. They are dealt back and forth: later tokens see more keys.

    Items of one block and of several are code of their own; all of a launch's sequence are of one kind.
    """
    several = minimum(blocks - 1, 1)
    for most, chosen in {1: 1 - several, shape.blocks: several}.items() if shape.blocks > 1 else ((1, 1),):
        mine = pieces * chosen
        place = lambda turn: turn * chip.cores + core + turn % 2 * (chip.cores - 1 - core * 2)  # noqa: E731
        turns = mine // chip.cores
        turns = turns + maximum(minimum(mine - place(turns), 1), 0)
        with b.loop(0, turns) as turn:
            make(item(place(turn)), most)
