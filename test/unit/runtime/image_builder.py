"""Small program images for the tests of the runtime."""

import struct

import numpy as np
from opennpu.compiler.image import ArgKind, build_image
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand, encode
from opennpu.dialects.isa.table import ISA
from opennpu.runtime.chip import Chip

CHIP = Chip.load("npu1-lite")
HEADER = struct.Struct("<8sIIQQIIQ")
SCALAR, READ, WRITE = ArgKind.SCALAR, ArgKind.READ, ArgKind.WRITE


def r(number: int, coef: int = 1, plus: int = 0) -> Affine:
    """plus + coef·register."""
    return Affine(plus, ((number, coef),))


def op(name: str, loc: int = 0, **fields: object) -> Instruction:
    """An instruction; fields that are not given are 0 (the first name of an enum)."""
    values = {}
    for field in ISA[name].fields:
        if field.name in fields:
            value = fields.pop(field.name)
        elif field.kind == "tile":
            value = TileOperand("spm", "f32", Affine(0))
        elif field.enum:
            value = (field.only or ISA.enums[field.enum])[0]
        else:
            value = 0
        values[field.name] = Affine(value) if field.kind == "value" and isinstance(value, int) else value
    assert not fields, f"{name} has no {sorted(fields)}"
    return Instruction(name, values, loc)


def image(
    *body: Instruction, args: tuple[ArgKind, ...] = (), locs: tuple[str, ...] = ("test",), chip=CHIP
) -> bytes:
    """The image of `body` and a halt."""
    return build_image(chip, list(args), encode([*body, op("halt")]), list(locs))


def raw_image(
    text: list[int],
    /,
    args: tuple[int, ...] = (),
    locs: tuple[bytes, ...] = (b"test",),
    **header: int | bytes,
) -> bytes:
    """An image of any words, with header fields replaced: magic, version, isa, fingerprint, ..."""
    fields = {
        "magic": b"ONPUPROG",
        "version": 1,
        "isa": ISA.version,
        "fingerprint": CHIP.fingerprint,
        "words": len(text),
        "nargs": len(args),
        "nlocs": len(locs),
        "loc_bytes": sum(map(len, locs)),
    }
    fields.update(header)
    out = HEADER.pack(*fields.values()) + struct.pack(f"<{len(args)}I", *args)
    out += bytes(-len(out) % 8) + np.array(text, dtype="<u8").tobytes()
    offsets = np.cumsum([0, *map(len, locs)]).astype("<u4")
    return out + offsets.tobytes() + b"".join(locs)


def copy_program(rows: int = 4, row_bytes: int = 64) -> bytes:
    """Core 0 copies rows of argument 0 to argument 1 by way of the scratchpad; argument 2 counts rows."""
    walk = {"n0": 1, "n1": 1, "n2": 1, "bytes": row_bytes}
    body = [
        op("if", cond=Affine(1, ((0, -1),))),
        op("s_arg", rd=2, index=0),
        op("s_arg", rd=3, index=1),
        op("s_arg", rd=4, index=2),
        op("loop", rd=5, lo=0, hi=r(4), step=1),
        op("dma_load", dst=0, src=Affine(0, ((2, 1), (5, row_bytes))), **walk),
        op("set_flag", queue="load", flag=0),
        op("wait_flag", queue="store", flag=0),
        op("dma_store", dst=Affine(0, ((3, 1), (5, row_bytes))), src=0, **walk),
        op("set_flag", queue="store", flag=1),
        op("wait_flag", queue="load", flag=1),
        op("end_loop"),
        op("end_if"),
        op("barrier"),
    ]
    return image(*body, args=(READ, WRITE, SCALAR), locs=("copy at test.py:1",))


def store_register(reg: int, address: Affine) -> list[Instruction]:
    """Writes a register to HBM as i64, by way of scratchpad address 0."""
    walk = {"n0": 1, "n1": 1, "n2": 1, "bytes": 8}
    return [
        op("v_iota", dst=TileOperand("spm", "i64", Affine(0)), d0=1, d1=1, d2=1, base=r(reg)),
        op("set_flag", queue="vector", flag=0),
        op("wait_flag", queue="store", flag=0),
        op("dma_store", dst=address, src=0, **walk),
        op("set_flag", queue="store", flag=1),
        op("wait_flag", queue="vector", flag=1),
    ]


def run_registers(device, body: list[Instruction], result: int, values: tuple[int, ...] = ()) -> list[int]:
    """Runs `body` and returns register `result` of every core.

    `values` are scalar launch arguments 1, 2, …; argument 0 is the result. r250 is taken.
    """
    cores = device.chip.cores
    store = store_register(result, Affine(0, ((250, 1), (0, 8))))
    data = image(op("s_arg", rd=250, index=0), *body, *store, args=(WRITE, *[SCALAR] * len(values)))
    out = device.alloc(8 * cores)
    stream = device.stream()
    stream.launch(device.load(data), [(out, 0, 8 * cores), *values])
    stream.synchronize()
    return out.numpy().view(np.int64).tolist()
