"""A laboratory for single instructions: random memories, random tiles, one run, every byte compared.

    a = lab.tile((2, 3, 5), "bf16", torch.randn(2, 3, 5))
    dst = lab.tile((2, 3, 5), "f32")
    got = lab.run(lab.vector("v_unary", op="exp", dst=dst, a=a))
    got.expect(dst, torch.exp(a.values().double()), ulps=lab.ulps)

`run` loads scratchpad and accumulator of a one-core chip from the host, executes the instructions and
brings both memories back, so a test also sees that nothing else was written.
"""

from dataclasses import dataclass, replace

import torch
from opennpu.compiler.image import ArgKind, build_image
from opennpu.dialects.isa.encoding import Affine, Instruction, TileOperand, encode
from opennpu.dialects.isa.table import DTYPE_BYTES
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device, tensor_view

CHIP = replace(Chip.load("npu1-lite"), name="lab", cores=1, spm_kib=192, acc_kib=96, hbm_gib=1)

TORCH_DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "i64": torch.int64,
    "i32": torch.int32,
    "i8": torch.int8,
    "bool": torch.uint8,  # as its byte: any but 0 is true
}
FLOATS = ("f32", "bf16")
INTEGERS = ("i64", "i32", "i8", "bool")
HBM_REGISTER = 16  # the address of HBM buffer i stands in register HBM_REGISTER + i

# Relative error in units of the last place of f32 that isa.toml allows for exp, log, tanh, …
ULPS = {"reference": 1, "native": 4}


@dataclass(frozen=True)
class Tile:
    """A strided operand within the memories of a lab; strides in bytes, 0 repeats."""

    space: str
    dtype: str
    shape: tuple[int, int, int]
    address: int
    strides: tuple[int, int, int]
    memory: dict[str, torch.Tensor]

    @property
    def operand(self) -> TileOperand:
        return TileOperand(self.space, self.dtype, Affine(self.address), *self.strides)

    def view(self, memory: dict[str, torch.Tensor]) -> torch.Tensor:
        """The elements in `memory`, as a tensor of self.shape that shares its bytes."""
        size = DTYPE_BYTES[self.dtype]
        flat = memory[self.space].view(TORCH_DTYPES[self.dtype])
        return flat.as_strided(self.shape, [s // size for s in self.strides], self.address // size)

    def values(self) -> torch.Tensor:
        """A copy of the elements before the run."""
        return self.view(self.memory).clone()


@dataclass(frozen=True)
class Result:
    """The memories after a run, next to those before it."""

    before: dict[str, torch.Tensor]
    after: dict[str, torch.Tensor]

    def expect(self, dst: Tile, want: torch.Tensor, ulps: float = 0, absolute: float = 0) -> None:
        """`dst` holds `want` cast to its dtype, and no byte outside `dst` has changed.

        With ulps and absolute 0 bit for bit, but NaN is NaN and -0 is 0. Otherwise `want` is f64, and the
        error is at most ulps units of the last place of f32, or absolute; half a unit more of a bf16 `dst`.
        """
        have = dst.view(self.after)
        if ulps or absolute:
            _expect_close(have, want, ulps, absolute)
        else:
            torch.testing.assert_close(have, want.to(have.dtype), rtol=0, atol=0, equal_nan=True)
        expected = {space: data.clone() for space, data in self.before.items()}
        dst.view(expected).copy_(have)
        self.expect_memory(expected)

    def expect_memory(self, expected: dict[str, torch.Tensor]) -> None:
        """Every byte of the memories named in `expected`."""
        for space, data in expected.items():
            wrong = (self.after[space] != data).nonzero().flatten().tolist()
            assert not wrong, f"{space}: {len(wrong)} bytes differ, the first at {wrong[0]}"


def _expect_close(have: torch.Tensor, want: torch.Tensor, ulps: float, absolute: float) -> None:
    assert want.dtype == torch.float64
    nearest = want.to(torch.float32)
    allowed = (ulps * ulp(nearest, torch.float32)).clamp(min=absolute)
    if have.dtype == torch.bfloat16:
        allowed = allowed + ulp(nearest, torch.bfloat16) / 2
    error = (have.double() - want).abs()
    same = (have == nearest.to(have.dtype)) | (have.isnan() & want.isnan())
    wrong = ~(same | (error <= allowed))
    assert not wrong.any(), f"got {have[wrong][:5]}, want {want[wrong][:5]}, allowed {allowed[wrong][:5]}"


def ulp(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance of two neighbours of `dtype` around x, f64."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(x.abs().clamp(min=info.tiny).double()).exponent - 1
    return info.eps * torch.ldexp(torch.ones_like(x, dtype=torch.float64), exponent)


def fused_multiply_add(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a·b + c of f32 tensors with one rounding.

    In f64 the product is exact; the sum is rounded to odd, so that the rounding to f32 is the only one that
    counts (Boldo and Melquiond 2008).
    """
    product, addend = a.double() * b.double(), c.double()
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    bits = total.view(torch.int64)
    outwards = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where((error != 0) & (bits % 2 == 0), bits + outwards, bits).view(torch.float64).float()


class Lab:
    """Memories of random bytes, places for tiles in them, and an engine to run on."""

    def __init__(self, seed: int, device: Device | None = None):
        """Without a device for a subclass that keeps the promises of the reference engine."""
        self.device = device
        engine = device.engine if device else "reference"
        self.ulps = ULPS[engine]
        self.exact = engine == "reference"
        self.rng = torch.Generator().manual_seed(seed)
        self.memory = {"spm": self.bytes(CHIP.spm_bytes), "acc": self.bytes(CHIP.acc_bytes)}
        self._free = {"spm": 0, "acc": 0}

    # ---- random things

    def bytes(self, count: int) -> torch.Tensor:
        return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=self.rng)

    def randint(self, low: int, high: int, shape=(), dtype=torch.int64) -> torch.Tensor:
        """Integers low ≤ x < high."""
        return torch.randint(low, high, shape, generator=self.rng, dtype=dtype)

    def number(self, low: int, high: int) -> int:
        return int(self.randint(low, high))

    def randn(self, shape, scale: float = 1) -> torch.Tensor:
        return torch.randn(shape, generator=self.rng) * scale

    def shape(self) -> tuple[int, int, int]:
        return self.number(1, 4), self.number(1, 5), self.number(1, 40)

    def values(self, dtype: str, shape) -> torch.Tensor:
        """Normal numbers of several sizes and all the special ones; any integer."""
        if dtype == "bool":
            return self.randint(0, 3, shape, torch.uint8)
        if dtype not in FLOATS:
            info = torch.iinfo(TORCH_DTYPES[dtype])
            any_ = self.randint(info.min, info.max, shape, TORCH_DTYPES[dtype])
            return torch.where(self.randint(0, 2, shape) == 0, any_ % 7 - 3, any_)
        special = torch.tensor(
            [0.0, -0.0, 1, -1, 0.5, 2.5, torch.inf, -torch.inf, torch.nan, 1e-40, -1e-40, 3e38, -3e9]
        )
        scale = torch.tensor([1e-3, 1.0, 10.0, 300.0])[self.randint(0, 4, shape)]
        chosen = special[self.randint(0, len(special), shape)]
        return torch.where(self.randint(0, 4, shape) == 0, chosen, self.randn(shape) * scale).to(
            TORCH_DTYPES[dtype]
        )

    # ---- tiles

    def tile(
        self,
        shape,
        dtype: str,
        values: torch.Tensor | None = None,
        space: str | None = None,
        repeat=(),
        rows=False,
    ) -> Tile:
        """A tile at a fresh place, its dimensions in any order in memory, with gaps.

        `repeat` names dimensions of stride 0; with `rows` the dimensions stand in order, the last contiguous.
        `values` (broadcast to shape) are written to it; without them it holds random bytes.
        """
        space = space or ("spm", "acc")[self.number(0, 4) == 0]
        size = DTYPE_BYTES[dtype]
        strides, span = [0, 0, 0], size
        for dim in [2, 1, 0] if rows else torch.randperm(3, generator=self.rng).tolist():
            if dim not in repeat:
                gap = 0 if rows and dim == 2 else self.number(0, 3)
                strides[dim] = span + size * gap
                span = strides[dim] * max(shape[dim], 1)
        address = -(-self._free[space] // size) * size + size * self.number(0, 4)
        self._free[space] = address + span
        assert self._free[space] <= len(self.memory[space]), f"the test's tiles do not fit {space}"
        tile = Tile(space, dtype, tuple(shape), address, tuple(strides), self.memory)
        if values is not None:
            narrow = tuple(slice(0, 1) if dim in repeat else slice(None) for dim in range(3))
            tile.view(self.memory)[narrow].copy_(values.expand(shape)[narrow])
        return tile

    def vector(self, name: str, shape=None, **fields) -> Instruction:
        """A vector instruction; tiles as operands, its extents from `shape` or dst's."""
        extents = dict(zip(("d0", "d1", "d2"), shape or fields["dst"].shape, strict=True))
        operands = {k: v.operand if isinstance(v, Tile) else v for k, v in fields.items()}
        return Instruction(name, {**extents, **operands})

    # ---- running

    def run(self, *instructions: Instruction, hbm: tuple[torch.Tensor, ...] = ()) -> Result:
        """Executes on the memories of this lab; `hbm` buffers are updated in place. Raises NpuError."""
        before = {space: data.clone() for space, data in self.memory.items()}
        after = {space: torch.empty_like(data) for space, data in self.memory.items()}
        args = [before["spm"], before["acc"], after["spm"], after["acc"], *hbm]
        kinds = [ArgKind.READ] * 2 + [ArgKind.WRITE] * (2 + len(hbm))
        text = encode([*_prologue(len(hbm)), *instructions, *_epilogue()])
        launch(self.device, build_image(CHIP, kinds, text, ["lab"]), args)
        return Result(before, after)


def launch(device: Device, image: bytes, args: list[int | torch.Tensor]) -> None:
    """Runs a program once. A uint8 tensor becomes a buffer of its own, and is updated. Raises NpuError."""
    program, stream = device.load(image), device.stream()
    buffers = {i: device.alloc(a.numel()) for i, a in enumerate(args) if isinstance(a, torch.Tensor)}
    views = {i: tensor_view(buffer, "i8", (buffer.bytes,)).view(torch.uint8) for i, buffer in buffers.items()}
    for i, view in views.items():
        view.copy_(args[i])
    stream.launch(
        program, [(buffers[i], 0, buffers[i].bytes) if i in buffers else a for i, a in enumerate(args)]
    )
    stream.synchronize()
    for i, view in views.items():
        args[i].copy_(view)


_SPM_IN, _ACC_IN, _SPM_OUT, _ACC_OUT = (Affine.reg(10 + i) for i in range(4))


def _copy(name: str, dst, src, count: int) -> Instruction:
    return dma(name, dst=dst, src=src, n=(1, 1, 1), bytes=count)


def dma(name: str, dst, src, n, bytes, ss=(0, 0, 0), ds=(0, 0, 0)) -> Instruction:
    """A dma_load or dma_store."""
    triples = {
        f"{key}{i}": v for key, values in (("n", n), ("ss", ss), ("ds", ds)) for i, v in enumerate(values)
    }
    alone = {"share": 1, "share_stride": 1} if name == "dma_load" else {}
    return Instruction(name, {"dst": dst, "src": src, "bytes": bytes, **triples, **alone})


def _move_accumulator(to: str) -> Instruction:
    """Between the accumulator and the foot of the scratchpad, bits as they are."""
    tiles = {s: TileOperand(s, "i32", Affine(0), 0, 0, 4) for s in ("spm", "acc")}
    extents = {"d0": 1, "d1": 1, "d2": CHIP.acc_bytes // 4}
    return Instruction(
        "v_unary", {"op": "copy", "dst": tiles[to], "a": tiles["spm" if to == "acc" else "acc"], **extents}
    )


def _prologue(buffers: int) -> list[Instruction]:
    barrier = Instruction("barrier")
    registers = [*range(10, 14), *range(HBM_REGISTER, HBM_REGISTER + buffers)]
    return [
        *(Instruction("s_arg", {"rd": rd, "index": i}) for i, rd in enumerate(registers)),
        *(_copy("dma_load", 0, _ACC_IN, CHIP.acc_bytes), barrier, _move_accumulator("acc"), barrier),
        *(_copy("dma_load", 0, _SPM_IN, CHIP.spm_bytes), barrier),
    ]


def _epilogue() -> list[Instruction]:
    barrier = Instruction("barrier")
    return [
        *(
            barrier,
            _copy("dma_store", _SPM_OUT, 0, CHIP.spm_bytes),
            barrier,
            _move_accumulator("spm"),
            barrier,
        ),
        *(_copy("dma_store", _ACC_OUT, 0, CHIP.acc_bytes), Instruction("halt")),
    ]
