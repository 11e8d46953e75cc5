"""A launch of compiled IR, in the interpreter or on an engine: tensors in, tensors out."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from opennpu.compiler.assembler import assemble, signature_of
from opennpu.compiler.frontend.ops import KvStore
from opennpu.compiler.interpreters.tile import Machine
from opennpu.compiler.interpreters.tile_memory import GARBAGE, Hbm
from opennpu.compiler.weights import check_weights, segment
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip
from opennpu.runtime.device import Device
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.extents import Extent
from opennpu.runtime.signature import ITEMSIZE, KV_BUFFERS, KvSpec, Signature, TensorArg
from torch import Tensor
from torch_mlir import ir


def run(
    module: ir.Module,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    chip: Chip,
    symbols: Mapping[str, int] | None = None,
    kv: KvStore | None = None,
) -> list[Tensor]:
    """The results of `@main`, after convert-npu-to-tile and any later pass of the level.

    As `interpreters.npu.run`: `inputs` and `params` by name; the sizes of the inputs bind the
    symbols, `symbols` gives the others; pages are read from and written to `kv`. Raises TileFault
    where the program breaks a rule of the instruction set, CompileError for what is missing.
    """
    launch = Launch(module, chip, inputs, params, symbols, kv)
    with module.context:
        launch.machine().run(module)
    return launch.finish()


def run_on_engine(
    module: ir.Module,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    device: Device,
    symbols: Mapping[str, int] | None = None,
    kv: KvStore | None = None,
) -> list[Tensor]:
    """The results of a module at level npu_isa; otherwise as `run`. Raises NpuError."""
    launch = Launch(module, device.chip, inputs, params, symbols, kv)
    with module.context, ir.Location.unknown():
        image = assemble(module, device.chip)
    launch.execute(device, image)
    return launch.finish()


@dataclass(frozen=True)
class Memory:
    """The bytes of a launch argument, which a run may change where it is writable."""

    bytes: np.ndarray
    writable: bool


class Launch:
    """The arguments of one launch, in the order of the signature: ints, and memory."""

    def __init__(
        self,
        module: ir.Module,
        chip: Chip,
        inputs: Mapping[str, Tensor],
        params: Mapping[str, Tensor],
        symbols: Mapping[str, int] | None = None,
        kv: KvStore | None = None,
    ):
        described = signature_of(module)
        text = json.dumps({"chip": chip.to_dict(), **described})
        self.signature = Signature.from_json(text)
        self.chip, self.inputs, self.kv = chip, inputs, kv
        self.symbols = self._bound(dict(symbols or {}))
        self.outputs: list[tuple[TensorArg, Tensor]] = []
        self.pages = _Pages(self.signature.kv, kv) if self.signature.kv else None
        weights = self._weights(described["weights"], params)
        self.arguments = [self._argument(arg, weights) for arg in self.signature.args]

    def machine(self) -> Machine:
        """An interpreter whose HBM is the memory of the launch."""
        hbm = Hbm()
        arguments = [a if isinstance(a, int) else hbm.add(a.bytes, a.writable) for a in self.arguments]
        return Machine(self.chip, hbm, arguments)

    def execute(self, device: Device, image: bytes) -> None:
        """Launches a program image; what it writes comes back into the memory of the launch."""
        program, stream = device.load(image), device.stream()
        places: list = []
        for argument in self.arguments:
            if isinstance(argument, int):
                places.append(argument)
                continue
            buffer = device.alloc(max(argument.bytes.nbytes, 1))
            stream.copy_in(buffer, 0, argument.bytes)
            places.append((buffer, 0, argument.bytes.nbytes))
        stream.launch(program, places)
        for argument, place in zip(self.arguments, places, strict=True):
            if isinstance(argument, Memory) and argument.writable:
                stream.copy_out(argument.bytes, place[0], 0)
        stream.synchronize()

    def finish(self) -> list[Tensor]:
        """The outputs after the run, in order; pages go back to where they came from."""
        if self.pages:
            self.pages.store()
        return [flat.as_strided(*self._strides(arg)) for arg, flat in self.outputs]

    def _argument(self, arg, weights: np.ndarray) -> int | Memory:
        match arg.kind:
            case "input":
                return Memory(_bytes(self._input(arg), arg), writable=False)
            case "output":
                flat = torch.empty(self._reach(arg), dtype=DTYPES[arg.dtype])
                self.outputs.append((arg, flat))
                memory = flat.view(torch.uint8).numpy()
                memory.fill(GARBAGE)
                return Memory(memory, writable=True)
            case "symbol":
                return self.symbols[arg.name]
            case "weights":
                return Memory(weights, writable=False)
            case "workspace":
                size = arg.bytes.evaluate(self.symbols)
                return Memory(np.full(size, GARBAGE, np.uint8), writable=True)
        return self.pages.argument(arg.field)

    def _input(self, arg: TensorArg) -> Tensor:
        if arg.name not in self.inputs:
            raise CompileError(f"input '{arg.name}' is missing")
        return self.inputs[arg.name]

    def _bound(self, symbols: dict[str, int]) -> dict[str, int]:
        """Values of symbols, from the sizes and strides of the inputs where they are not given."""
        measured: list[tuple[Extent, int]] = []
        for arg in self.signature.tensors("input").values():
            tensor = self._input(arg)
            measured += zip(arg.shape, tensor.shape, strict=True)
            measured += zip(arg.strides or (), tensor.stride(), strict=False)
        for _ in self.signature.symbols:  # an extent may need a symbol that a later one binds
            for extent, size in measured:
                if found := extent.solve(size, symbols):
                    symbols.setdefault(*found)
        if missing := self.signature.symbols.keys() - symbols.keys():
            raise CompileError(f"the inputs do not determine the symbols {', '.join(sorted(missing))}")
        return symbols

    def _weights(self, entries: list[dict], params: Mapping[str, Tensor]) -> np.ndarray:
        check_weights(entries, params)
        chunks: Iterable = segment(entries, params, self.chip, self.signature.weight_bytes)
        return np.frombuffer(b"".join(chunks), np.uint8).copy()

    def _strides(self, arg: TensorArg) -> tuple[list[int], list[int]]:
        """(extents, strides in elements) of an argument."""
        shape = [extent.evaluate(self.symbols) for extent in arg.shape]
        if arg.strides:
            return shape, [extent.evaluate(self.symbols) for extent in arg.strides]
        return shape, list(torch.empty(shape, device="meta").stride())

    def _reach(self, arg: TensorArg) -> int:
        """The elements from the first to the last."""
        shape, strides = self._strides(arg)
        return 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def _bytes(tensor: Tensor, arg: TensorArg) -> np.ndarray:
    """A copy of a tensor's memory from its first element to its last."""
    tensor = tensor.detach() if arg.strides else tensor.detach().contiguous()
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    span = reach + 1 if tensor.numel() else 0
    return tensor.as_strided((span,), (1,)).view(torch.uint8).numpy().copy()


class _Pages:
    """A KvStore as the two buffers of a launch: per layer [slot][head][dim], equally far apart in both."""

    def __init__(self, spec: KvSpec, kv: KvStore | None):
        if kv is None or spec.tensors:
            raise CompileError("the program keeps KV pages: pass `kv`, pages that are inputs are not taken")
        self.spec, self.kv = spec, kv
        self.dim = max(spec.head_dim, spec.v_head_dim)
        shape = (spec.layers, kv.slots, spec.kv_heads, self.dim)
        self.buffers = [torch.zeros(shape, dtype=DTYPES[spec.dtype]) for _ in KV_BUFFERS]
        for layer in range(spec.layers):
            for buffer, tensor in zip(self.buffers, self._layer(layer), strict=True):
                buffer[layer, ..., : tensor.shape[-1]] = tensor

    def store(self) -> None:
        for layer in range(self.spec.layers):
            for buffer, tensor in zip(self.buffers, self._layer(layer), strict=True):
                tensor.copy_(buffer[layer, ..., : tensor.shape[-1]])

    def argument(self, name: str) -> int | Memory:
        if name in KV_BUFFERS:
            tensor = self.buffers[KV_BUFFERS.index(name)]
            return Memory(tensor.view(-1).view(torch.uint8).numpy(), writable=True)
        token = self.spec.kv_heads * self.dim * ITEMSIZE[self.spec.dtype]
        return {
            "layer_stride": self.kv.slots * token,
            "page_stride": self.kv.page_size * token,
            "token_stride": token,
            "head_stride": self.dim * ITEMSIZE[self.spec.dtype],
            "page_size": self.kv.page_size,
            "slots": self.kv.slots,
        }[name]

    def _layer(self, layer: int) -> tuple[Tensor, Tensor]:
        spec = self.spec
        return self.kv.layer(layer, spec.kv_heads, spec.head_dim, spec.v_head_dim, DTYPES[spec.dtype])
