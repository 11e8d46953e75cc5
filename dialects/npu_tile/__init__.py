"""Level 2, `npu_tile`: tiles in scratchpad and accumulator, DMA, scf loops (docs/architecture.md).

    from opennpu.dialects import npu_tile

    npu_tile.load()                                   # once per context
    x = npu_tile.alloc([64, 128], "bf16")             # memref<64x128xbf16, "spm">
    y = npu_tile.alloc([64, 128], "f32", "acc")
    npu_tile.build("v_unary", dict(dst=(y, 0), a=(x, offset), d0=1, d1=rows, d2=128),
                   dict(op="silu", dst_strides=[0, 512, 4], a_strides=[0, 256, 2]))

`build` is the one way to make an engine operation: every buffer field is a pair (memref, byte
offset), every other operand an i64; ints become constants, attributes are plain Python values.
"""

from opennpu.dialects.npu_tile.dialect import (
    QUEUES,
    NpuTile,
    alloc,
    build,
    constant,
    constant_value,
    dtype_of,
    load,
    memref_bytes,
    memref_type,
)
from opennpu.dialects.npu_tile.effects import Access, accesses

__all__ = [
    "QUEUES",
    "Access",
    "NpuTile",
    "accesses",
    "alloc",
    "build",
    "constant",
    "constant_value",
    "dtype_of",
    "load",
    "memref_bytes",
    "memref_type",
]
