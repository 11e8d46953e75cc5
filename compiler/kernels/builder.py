"""TileBuilder: the small language kernels are written in.

Scalars are `Index` (`scalars.py`). A piece of scratchpad or accumulator is a `TileRef`.
Each method makes ops at the current insertion point:

    with b.loop(0, rows, step) as row:
        x = b.alloc((step, 64), "bf16")
        b.load(x, view, (row, 0), (minimum(step, rows - row), 64))
        b.unary("exp", x, x, (step, 64))
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from opennpu.compiler.kernels.scalars import I64, Index, compare, ssa
from opennpu.compiler.kernels.values import ITEMSIZE, View
from opennpu.compiler.kernels.views import row_major
from opennpu.compiler.tile_ir import slot_bytes
from opennpu.dialects import npu_tile
from opennpu.dialects.isa.table import ISA
from opennpu.dialects.npu_tile.dialect import SlotOp
from opennpu.dialects.symbols import Dim, Sym
from torch_mlir import ir
from torch_mlir.dialects import scf


@dataclass(frozen=True)
class TileRef:
    """An operand in scratchpad or accumulator: a buffer, a byte offset, byte strides of d0, d1, d2."""

    buffer: ir.Value
    dtype: str
    space: str
    strides: tuple[int, int, int]
    offset: Index = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of the whole buffer."""
        return tuple(ir.MemRefType(self.buffer.type).shape)

    def at(self, *index: Index) -> "TileRef":
        """The window that starts at `index`, which counts along the last len(index) dimensions."""
        offset = self.offset
        for i, stride in zip(index, self.strides[3 - len(index) :], strict=True):
            offset = offset + i * stride
        return replace(self, offset=offset)

    def broadcast(self, *dims: int) -> "TileRef":
        """The same window, repeated along the dimensions (0, 1, 2, or -1 for the last)."""
        zero = {d % 3 for d in dims}
        return replace(self, strides=tuple(0 if d in zero else s for d, s in enumerate(self.strides)))

    def permuted(self, *strides: int) -> "TileRef":
        """The window with other byte strides, left-padded with 0."""
        return replace(self, strides=_pad(strides, 0))


@dataclass(frozen=True)
class Share:
    """The cores that one load serves: so many, whose numbers are so far apart (`isa.toml`, dma_load)."""

    cores: Index
    stride: Index


ALONE = Share(1, 1)


@dataclass(frozen=True)
class Ring:
    """`slots` tiles of one shape; `number` tells the rings of a kernel apart."""

    tile: TileRef
    slots: int
    number: int

    def tiles(self, slot: Index) -> TileRef:
        """The tiles from number `slot` on, [tile][row][column]."""
        stride = slot_bytes(self.tile.buffer.type)
        return replace(self.tile.permuted(stride, *self.tile.strides[1:]), offset=slot * stride)


class TileBuilder:
    """Makes tile ops. `argument` gives the SSA value of a launch argument by its signature key."""

    def __init__(self, argument: Callable[[str], ir.Value], address: Callable[["TileBuilder", View], Index]):
        self._argument = argument
        self._address = address
        self._rings = 0  # made so far

    # ---- scalars

    def arg(self, key: str) -> I64:
        """A launch argument: `symbol:T`, `kv:k_base`, …"""
        return I64(self._argument(key))

    def sym(self, extent: Dim) -> Index:
        """The run-time value of a symbolic extent."""
        total: Index = 0
        for monomial, coefficient in Sym.of(extent).terms.items():
            term: Index = coefficient
            for name in monomial:
                term = self.arg(f"symbol:{name}") * term
            total = total + term
        return total

    def core(self) -> I64:
        """This core's number."""
        return I64(_op("core", results=[_i64()]).result)

    def load_scalar(self, address: Index, dtype: str = "i64") -> I64:
        """The integer at an HBM address."""
        attributes = {"dtype": ir.StringAttr.get(dtype)}
        return I64(_op("load_scalar", [ssa(address)], attributes, [_i64()]).result)

    def address(self, view: View, *index: Index) -> Index:
        """The HBM byte address of an element of a view (its first where no index is given)."""
        address = self._address(self, view)
        for i, stride in zip(index, view.strides, strict=False):
            address = address + i * (self.sym(stride) * view.itemsize)
        return address

    # ---- control

    @contextmanager
    def loop(self, lo: Index, hi: Index, step: Index = 1) -> Iterator[I64]:
        """for i in lo, lo + step, … < hi."""
        op = scf.ForOp(ssa(lo), ssa(hi), ssa(step))
        with ir.InsertionPoint(op.body):
            yield I64(op.induction_variable)
            scf.YieldOp([])

    @contextmanager
    def if_(self, condition: ir.Value) -> Iterator[None]:
        """Runs the body where the i1 `condition` (`scalars.compare`) holds."""
        op = scf.IfOp(condition)
        with ir.InsertionPoint(op.then_block):
            yield
            scf.YieldOp([])

    @contextmanager
    def first_time(self, index: I64, lo: Index) -> Iterator[None]:
        """Runs the body in the first iteration of the loop right around it, of `index` from `lo`."""
        op = scf.IfOp(compare(index, "eq", lo))
        op.attributes["npu_tile.first"] = ir.UnitAttr.get()
        with ir.InsertionPoint(op.then_block):
            yield
            scf.YieldOp([])

    @contextmanager
    def turns(self, ring: "Ring", lo: Index, hi: Index) -> Iterator[tuple[I64, TileRef]]:
        """for i in lo … < hi: i and the tile whose turn it is, from the first on; no other is touched."""
        with self.loop(lo, hi) as i:
            number, slots = (ir.IntegerAttr.get(_i64(), n) for n in (ring.number, ring.slots))
            yield i, ring.tiles(I64(SlotOp(ssa(i - lo), loop=number, slots=slots).res))

    # ---- memory

    def alloc(self, shape: Sequence[int], dtype: str, space: str = "spm", slots: int = 0) -> TileRef:
        """A fresh buffer of up to three dimensions, row-major.

        In a loop npu-tile-double-buffer gives it `slots` before others have more than one, 0: as it sees fit.
        """
        strides = [s * ITEMSIZE[dtype] for s in row_major(tuple(shape))]
        return TileRef(npu_tile.alloc(shape, dtype, space, slots), dtype, space, _pad(strides, 0))

    def ring(self, shape: Sequence[int], dtype: str, slots: int, space: str = "spm") -> "Ring":
        """Buffers side by side, which loops take in turn (`turns`): there queues are ordered tile by tile."""
        tile = self.alloc(shape, dtype, space)
        for name, value in {"slots": slots, "loop": self._rings}.items():
            tile.buffer.owner.attributes[name] = ir.IntegerAttr.get(_i64(), value)
        self._rings += 1
        return Ring(tile, slots, self._rings - 1)

    def dma_load(
        self, dst: TileRef, src: Index, counts, nbytes: Index, src_strides, dst_strides, share: Share = ALONE
    ) -> None:
        """Up to three nested counts of `nbytes` contiguous bytes, HBM address → tile; strides in bytes.

        All cores of `share` must issue the same load, none more often than the others.
        """
        fields = _dma_fields(counts, nbytes, src_strides, dst_strides)
        _engine("dma_load", dst=dst, src=src, share=share.cores, share_stride=share.stride, **fields)

    def dma_store(self, dst: Index, src: TileRef, counts, nbytes: Index, src_strides, dst_strides) -> None:
        """The mirror of dma_load."""
        fields = _dma_fields(counts, nbytes, src_strides, dst_strides)
        _engine("dma_store", dst=dst, src=src, **fields)

    def load(
        self,
        dst: TileRef,
        src: View,
        start: Sequence[Index],
        extents: Sequence[Index],
        share: Share = ALONE,
    ) -> None:
        """Copies the block of a view at `start` into a tile; `share` as for dma_load.

        `extents` (at most three, four where rows are dense) count along the last dimensions
        of view and tile.
        """
        counts, nbytes, hbm, spm = self._block(src, dst, extents)
        self.dma_load(dst, self.address(src, *start), counts, nbytes, hbm, spm, share)

    def store(self, dst: View, start: Sequence[Index], src: TileRef, extents: Sequence[Index]) -> None:
        """The mirror of load."""
        counts, nbytes, hbm, spm = self._block(dst, src, extents)
        self.dma_store(self.address(dst, *start), src, counts, nbytes, spm, hbm)

    def _block(self, view: View, tile: TileRef, extents: Sequence[Index]):
        """DMA counts, run bytes, HBM strides and tile strides of a block."""
        hbm = [self.sym(s) * view.itemsize for s in view.strides[view.rank - len(extents) :]]
        spm = list(tile.strides)[-len(hbm) :] if len(hbm) <= 3 else [0, *tile.strides]
        item = view.itemsize
        if hbm and _same(hbm[-1], item) and spm[-1] == item:
            return list(extents[:-1]), extents[-1] * item, hbm[:-1], spm[:-1]
        return list(extents), item, hbm, spm

    def dma_gather(self, dst: TileRef, src: Index, **fields: Index | str) -> None:
        """Rows that a list of indices in HBM picks → tile.

        Fields as in `isa.toml`; needed are index, index_dtype, count, limit, row_bytes.
        """
        _engine("dma_gather", dst=dst, src=src, **(_INDIRECT | _GATHER | fields))

    def dma_scatter(self, dst: Index, src: TileRef, **fields: Index | str) -> None:
        """The mirror of dma_gather."""
        _engine("dma_scatter", dst=dst, src=src, **(_INDIRECT | _SCATTER | fields))

    # ---- matrix unit

    def mx_load(self, src: TileRef, layout: str, k: Index, n: Index, stride: Index) -> None:
        """Makes a k × n tile stationary; layout packed, kn or nk; stride in bytes."""
        _engine("mx_load", src=src, dtype=src.dtype, layout=layout, k=k, n=n, stride=stride)

    def mx_mul(self, dst: TileRef, src: TileRef, rows: Index, accumulate: Index) -> None:
        """dst (+)= src · the stationary tile, row by row; the row strides are the tiles' d1 strides."""
        _engine(
            "mx_mul",
            dst=dst,
            dst_stride=dst.strides[1],
            src=src,
            src_stride=src.strides[1],
            rows=rows,
            accumulate=accumulate,
        )

    # ---- vector unit; `dims` are up to three extents, left-padded with 1

    def fill(self, dst: TileRef, value: float | int, dims: Sequence[Index]) -> None:
        _engine("v_fill", dst=dst, **_dims(dims), value=value)

    def iota(self, dst: TileRef, dims: Sequence[Index], base: Index, steps: Sequence[Index]) -> None:
        steps = dict(zip(("step0", "step1", "step2"), _pad(steps, 0), strict=True))
        _engine("v_iota", dst=dst, **_dims(dims), base=base, **steps)

    def unary(self, op: str, dst: TileRef, a: TileRef, dims: Sequence[Index]) -> None:
        _engine("v_unary", op=op, dst=dst, a=a, **_dims(dims))

    def copy(self, dst: TileRef, a: TileRef, dims: Sequence[Index]) -> None:
        """Copies and casts."""
        self.unary("copy", dst, a, dims)

    def binary(self, op: str, dst: TileRef, a: TileRef, b: TileRef, dims: Sequence[Index]) -> None:
        _engine("v_binary", op=op, dst=dst, a=a, b=b, **_dims(dims))

    def select(self, dst: TileRef, cond: TileRef, a: TileRef, b: TileRef, dims: Sequence[Index]) -> None:
        _engine("v_select", dst=dst, cond=cond, a=a, b=b, **_dims(dims))

    def reduce(self, op: str, dst: TileRef, a: TileRef, dims: Sequence[Index]) -> None:
        """Along the last dimension; dst[d0][d1] by its first two strides."""
        _engine("v_reduce", op=op, dst=dst, a=a, **_dims(dims))

    def softmax_step(self, p: TileRef, s: TileRef, m: TileRef, l: TileRef, alpha: TileRef, **fields):  # noqa: E741
        """One step of the online softmax; m, l, alpha are f32 vectors [rows].

        Fields as in `isa.toml`; needed are rows and n.
        """
        _engine("v_softmax_step", p=p, s=s, m=m, l=l, alpha=alpha, **(_SOFTMAX | fields))

    def transpose(self, dst: TileRef, a: TileRef, dims: Sequence[Index]) -> None:
        """dst[i0,i2,i1] = a[i0,i1,i2]."""
        _engine("v_transpose", dst=dst, a=a, **_dims(dims))

    def gather(self, dst: TileRef, a: TileRef, index: TileRef, dims: Sequence[Index], limit: Index) -> None:
        """dst[i0,i1,i2] = a[i0,i1,index[i0,i1,i2]]."""
        _engine("v_gather", dst=dst, a=a, index=index, **_dims(dims), limit=limit)


_SOFTMAX = {"scale": 1.0, "cap": 0.0, "causal": 0, "group": 1, "pos": 0, "key": 0, "window": 0}
_INDIRECT = {"group": 1, "group_stride": 0, "index_stride": 0, "rows": 1, "row_stride": 0}
_GATHER = {"dst_index_stride": 0, "dst_row_stride": 0}
_SCATTER = {"src_index_stride": 0, "src_row_stride": 0}


# ---- one engine instruction


def _engine(name: str, **fields) -> None:
    """Makes `npu_tile.<name>`: the fields become operands and attributes by its row in `isa.toml`."""
    operands, attributes = {}, {}
    for field in ISA[name].fields:
        value = fields.get(field.name)
        if field.on_chip:
            operands[field.name] = (value.buffer, ssa(value.offset))
            if field.kind == "tile":
                attributes[f"{field.name}_strides"] = value.strides
        elif field.kind == "value":
            operands[field.name] = ssa(value)
        elif value is not None:
            attributes[field.name] = value
    npu_tile.build(name, operands, attributes)


def _op(name: str, operands=(), attributes=None, results=()) -> ir.Operation:
    return ir.Operation.create(
        f"npu_tile.{name}", results=list(results), operands=list(operands), attributes=attributes or {}
    )


def _dims(extents: Sequence[Index]) -> dict[str, Index]:
    return dict(zip(("d0", "d1", "d2"), _pad(extents, 1), strict=True))


def _dma_fields(counts, nbytes: Index, src_strides, dst_strides) -> dict[str, Index]:
    names = [f"{kind}{i}" for kind in ("n", "ss", "ds") for i in range(3)]
    values = (*_pad(counts, 1), *_pad(src_strides, 0), *_pad(dst_strides, 0))
    return {**dict(zip(names, values, strict=True)), "bytes": nbytes}


def _pad(values: Sequence, neutral) -> tuple:
    """Left-padded to three."""
    assert len(values) <= 3, "a tile has at most three dimensions"
    return (neutral,) * (3 - len(values)) + tuple(values)


def _same(a: Index, b: int) -> bool:
    return isinstance(a, int) and a == b


def _i64() -> ir.IntegerType:
    return ir.IntegerType.get_signless(64)
