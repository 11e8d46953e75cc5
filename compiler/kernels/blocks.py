"""Products with packed weights: blocks of rows × columns, dealt to the cores as a grid.

A block of x that holds all of K stays in scratchpad while the core's columns of w stream by, or the
block's f32 sums do while K passes. Either way w is loaded once a block of rows: what else is loaded how
often decides between them (`matmul_tiling.py`). How many cores share the rows depends on how many
there are; no result depends on it. Where parts of K are summed is a program's: it follows from the
shape of w, the dtypes, the epilogue, the bound on the rows, the chip, and `--tune`.

Where the chip can, one read of HBM serves all cores that load the same: a row of the grid its x, a column its
w. They go through the same blocks then, at the edge through blocks of fewer rows or columns or none.

Source: the bounds on traffic by Hong and Kung (1981); blocks of sums as in Goto and van de Geijn (2008).
"""

from dataclasses import replace

from opennpu.compiler.kernels import views
from opennpu.compiler.kernels.builder import Share, TileBuilder, TileRef
from opennpu.compiler.kernels.product import PackedProduct, Rows
from opennpu.compiler.kernels.scalars import Index, ceildiv, compare, maximum, minimum
from opennpu.runtime.chip import Chip


def emit_blocks(b: TileBuilder, product: PackedProduct) -> None:
    """The core's part of the product; its tiling is a `BlockTiling`."""
    tiling, chip = product.tiling, product.chip
    m, tiles = b.sym(product.x.shape[0]), product.columns(b)
    row_cores = tiling.row_cores(chip, m, tiles)
    column_cores, core = chip.cores // row_cores, b.core()
    same_rows, same_columns = _share(chip, column_cores, 1), _share(chip, row_cores, column_cores)
    rows_each, columns_each = ceildiv(m, row_cores), ceildiv(tiles, column_cores)
    row, end = _part(core // column_cores, rows_each, m)
    first, last = _part(core % column_cores, columns_each, tiles)
    height = _even_blocks(rows_each, tiling.mt)
    with b.loop(row, row + rows_each, height) as start:
        rows = Rows((start,), minimum(tiling.mt, minimum(start + height, end) - start), peers=same_columns)
        if tiling.resident:
            _emit_resident(b, product, rows, same_rows, first, last)
            return
        width = _even_blocks(columns_each, tiling.columns)
        with b.loop(first, first + columns_each, width) as column:
            _emit_sums(b, product, rows, same_rows, column, minimum(column + width, last))


def _emit_resident(
    b: TileBuilder, product: PackedProduct, rows: Rows, same_rows: Share, first: Index, last: Index
) -> None:
    """The column tiles from `first` to before `last`, all of the rows' x in scratchpad."""
    if product.tiling.depth < product.packing.k:
        _emit_in_parts(b, product, rows, same_rows, first, last)
        return
    x = b.alloc((product.tiling.mt, product.packing.k), product.x.dtype)
    b.load(x, product.x, (*rows.start, 0), (rows.height, product.packing.k), same_rows)
    with b.loop(first, last) as tile:
        product.emit(b, replace(rows, resident=x), (), tile)


def _emit_in_parts(
    b: TileBuilder, product: PackedProduct, rows: Rows, same_rows: Share, first: Index, last: Index
) -> None:
    """The same with x a part of K at a time: while it comes, the first few tiles take what is there of it.

    They take the last part one after the other, as the first is to leave the accumulator to another. With few
    rows it is w that takes the time, and x comes at once.
    """
    tiling, parts = product.tiling, product.packing.k // product.tiling.depth
    x = b.ring((tiling.mt, tiling.depth), product.x.dtype, parts)
    accs = b.ring((tiling.mt, tiling.nt), "f32", tiling.columns, "acc")
    many = minimum(rows.height // product.chip.mx_k, 1)
    ahead = minimum(first + many * tiling.columns, last)
    by_part = views.transpose(views.reshape(product.x, (product.x.shape[0], parts, tiling.depth)), (1, 0, 2))

    def load(part: TileRef, number: Index, count: Index) -> None:
        b.load(part, by_part, (number, *rows.start, 0), (count, rows.height, tiling.depth), same_rows)

    def add(acc: TileRef, part: TileRef, number: Index, tile: Index) -> None:
        of_part = replace(rows, resident=part)
        product.add(b, acc, of_part, (), tile, number * tiling.depth, tiling.depth)

    load(x.tiles(0), 0, parts * (1 - many))
    with b.turns(x, 0, many * parts) as (number, part):
        load(part, number, 1)
        early = minimum(parts - 1 - number, 1) * (ahead - first)
        with b.turns(accs, first, first + early) as (tile, acc):
            add(acc, part, number, tile)
    with b.turns(accs, first, last) as (tile, acc):
        done = minimum(maximum(ahead - tile, 0), 1) * (parts - 1)
        with b.loop(done, parts) as number:
            add(acc, x.tiles(number), number, tile)
        product.finish(b, acc, rows, tile)


def _emit_sums(
    b: TileBuilder, product: PackedProduct, rows: Rows, same_rows: Share, first: Index, last: Index
) -> None:
    """The column tiles from `first` to before `last`, their sums in scratchpad."""
    tiling, k = product.tiling, product.packing.k
    sums = b.alloc((tiling.columns, tiling.mt, tiling.nt), "f32")
    with b.loop(0, k, tiling.depth) as at:
        depth = minimum(tiling.depth, k - at)
        x = b.alloc((tiling.mt, tiling.depth), product.x.dtype, slots=2)
        b.load(x, product.x, (*rows.start, at), (rows.height, depth), same_rows)
        with b.loop(first, last) as tile:
            width = product.width(b, tile)
            acc = b.alloc((tiling.mt, tiling.nt), "f32", "acc")
            with b.loop(0, depth, tiling.kt) as inner:
                kt = minimum(tiling.kt, depth - inner)
                w = product.load_weights(b, (tile,), at + inner, kt, rows.peers)
                product.make_stationary(b, w, kt, width)
                b.mx_mul(acc, x.at(0, inner), rows.height, accumulate=inner)
            total = sums.at(tile - first, 0, 0)
            _add(b, total, acc, (rows.height, width), at)
            with b.if_(compare(at + depth, "eq", k)):
                product.finish(b, total, rows, tile)


def _add(b: TileBuilder, total: TileRef, acc: TileRef, extents: tuple[Index, Index], at: Index) -> None:
    """total += acc, from the second part of K on."""
    with b.if_(compare(at, "eq", 0)):
        b.copy(total, acc, extents)
    with b.if_(compare(at, "sgt", 0)):
        b.binary("add", total, total, acc, extents)


def _share(chip: Chip, cores: Index, stride: Index) -> Share:
    """`cores` cores, `stride` apart, if the chip lets so many share a load, else none."""
    if chip.share_cores < chip.cores:
        cores = 1 + (cores - 1) * minimum(chip.share_cores // cores, 1)
    return Share(cores, stride)


def _part(index: Index, size: Index, total: Index) -> tuple[Index, Index]:
    """Part `index` of `total` in parts of `size`: from where to before where."""
    lo = index * size
    return lo, minimum(lo + size, total)


def _even_blocks(extent: Index, most: int) -> Index:
    """The size of blocks, at most `most`, that differ as little as may be; at least 1."""
    return maximum(ceildiv(extent, maximum(ceildiv(extent, most), 1)), 1)
