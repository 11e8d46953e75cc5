"""Products with packed weights: blocks of rows × columns, dealt to the cores as a grid.

A block of x that holds all of K stays in scratchpad while the core's columns of w stream by, or the
block's f32 sums do while K passes. Either way w is loaded once a block of rows: what else is loaded how
often decides between them (`matmul_tiling.py`). How many cores share the rows depends on how many
there are; no result depends on it. Where parts of K are summed is a program's: it follows from the
shape of w, the dtypes, the epilogue, the bound on the rows, the chip, and `--tune`.

Source: the bounds on traffic by Hong and Kung (1981); blocks of sums as in Goto and van de Geijn (2008).
"""

from opennpu.compiler.kernels.builder import TileBuilder, TileRef
from opennpu.compiler.kernels.product import PackedProduct, Rows
from opennpu.compiler.kernels.scalars import Index, ceildiv, compare, maximum, minimum


def emit_blocks(b: TileBuilder, product: PackedProduct) -> None:
    """The core's part of the product; its tiling is a `BlockTiling`."""
    tiling = product.tiling
    m, tiles = b.sym(product.x.shape[0]), product.columns(b)
    row_cores = tiling.row_cores(product.chip, m, tiles)
    column_cores, core = product.chip.cores // row_cores, b.core()
    row, end = _part(core // column_cores, ceildiv(m, row_cores), m)
    first, last = _part(core % column_cores, ceildiv(tiles, column_cores), tiles)
    height = _even_blocks(ceildiv(m, row_cores), tiling.mt)
    with b.loop(row, end, height) as start:
        if tiling.resident:
            rows = product.rows(b, (start,), minimum(start + height, end))
            with b.loop(first, last) as tile:
                product.emit(b, rows, (), tile)
            return
        rows = Rows((start,), minimum(height, end - start), None)
        width = _even_blocks(ceildiv(tiles, column_cores), tiling.columns)
        with b.loop(first, last, width) as column:
            _emit_sums(b, product, rows, column, minimum(column + width, last))


def _emit_sums(b: TileBuilder, product: PackedProduct, rows: Rows, first: Index, last: Index) -> None:
    """The column tiles from `first` to before `last`, their sums in scratchpad."""
    tiling, k = product.tiling, product.packing.k
    sums = b.alloc((tiling.columns, tiling.mt, tiling.nt), "f32")
    with b.loop(0, k, tiling.depth) as at:
        depth = minimum(tiling.depth, k - at)
        x = b.alloc((tiling.mt, tiling.depth), product.x.dtype, slots=2)
        b.load(x, product.x, (*rows.start, at), (rows.height, depth))
        with b.loop(first, last) as tile:
            w, width = product.load_weights(b, (tile,), at, tiling.depth, depth), product.width(b, tile)
            acc = b.alloc((tiling.mt, tiling.nt), "f32", "acc")
            with b.loop(0, depth, tiling.kt) as inner:
                kt = minimum(tiling.kt, depth - inner)
                product.make_stationary(b, w.at(inner * tiling.nt), kt, width)
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


def _part(index: Index, size: Index, total: Index) -> tuple[Index, Index]:
    """Part `index` of `total` in parts of `size`: from where to before where."""
    lo = index * size
    return lo, minimum(lo + size, total)


def _even_blocks(extent: Index, most: int) -> Index:
    """The size of blocks, at most `most`, that differ as little as may be; at least 1."""
    return maximum(ceildiv(extent, maximum(ceildiv(extent, most), 1)), 1)
