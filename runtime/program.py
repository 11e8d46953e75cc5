"""A compiled model on a device: `Program.load(device, path).run(inputs)`."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from opennpu.runtime.container import Container
from opennpu.runtime.device import Buffer, Device
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import MemoryArg, Signature, TensorArg


class ProgramError(ValueError):
    """Inputs that do not fit the program, or a model that cannot run as it is."""


class Program:
    """A loaded program and its weights. One run at a time; buffers are kept between runs."""

    def __init__(self, device: Device, image: bytes, signature: Signature, weights: Buffer | None = None):
        self.device, self.signature, self.weights = device, signature, weights
        self.loaded = device.load(image)
        self.stream = device.stream()
        self._buffers: dict[str, Buffer] = {}

    @classmethod
    def load(cls, device: Device, path: str | Path) -> "Program":
        """Loads a model.npu and its weights. Raises ContainerError, NpuError, ProgramError."""
        container = Container.open(path)
        signature = container.signature
        program = cls(device, container.program, signature)
        if signature.weight_bytes:
            if not container.has_weights:
                raise ProgramError(
                    f"{path} was compiled without weights ({signature.weight_bytes} bytes are missing): "
                    "export the model without --dummy-weights and compile it again"
                )
            program.weights = device.alloc(signature.weight_bytes)
            for offset, chunk in container.weight_chunks():
                program.stream.copy_in(program.weights, offset, chunk)
                program.stream.synchronize()
        return program

    def run(
        self, inputs: Mapping[str, torch.Tensor | np.ndarray], kv: PagePool | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the program once; returns its outputs by name, on the host.

        inputs: one tensor per input of the signature, with its dtype; their sizes bind the symbols.
        Raises ProgramError when they do not fit, NpuError when the program fails.
        """
        args, outputs = self.bind(inputs, kv)
        self.stream.launch(self.loaded, args)
        for name, tensor in outputs.items():
            self.stream.copy_out(_bytes(tensor), self._buffers[f"output {name}"], 0)
        self.stream.synchronize()
        return outputs

    def bind(
        self, inputs: Mapping[str, torch.Tensor | np.ndarray], kv: PagePool | None = None
    ) -> tuple[list, dict[str, torch.Tensor]]:
        """Copies the inputs in; the launch arguments, and tensors of the outputs' shapes.

        Arguments are as `Stream.launch` takes them. Raises ProgramError when the inputs do not fit.
        """
        tensors = self._tensors(inputs)
        symbols = self._bind_symbols(tensors)
        kv_values = self._kv_values(kv)
        outputs = {name: self._output(arg, symbols) for name, arg in self.signature.tensors("output").items()}
        args = [self._argument(arg, symbols, tensors, outputs, kv_values) for arg in self.signature.args]
        for name, tensor in tensors.items():
            self.stream.copy_in(self._buffers[f"input {name}"], 0, _bytes(tensor))
        return args, outputs

    # ---- inputs

    def _tensors(self, inputs: Mapping[str, torch.Tensor | np.ndarray]) -> dict[str, torch.Tensor]:
        """The inputs as contiguous tensors, their names, dtypes and ranks checked."""
        expected = self.signature.tensors("input")
        missing, unknown = expected.keys() - inputs.keys(), inputs.keys() - expected.keys()
        if missing or unknown:
            problems = [f"missing input {name!r}" for name in sorted(missing)]
            problems += [f"unknown input {name!r}" for name in sorted(unknown)]
            raise ProgramError(
                f"{'; '.join(problems)}. The program takes {', '.join(map(_title, expected.values()))}"
            )
        tensors = {}
        for name, arg in expected.items():
            tensor = torch.as_tensor(inputs[name])
            if tensor.dtype != DTYPES[arg.dtype]:
                raise ProgramError(f"input {_title(arg)}: the tensor given is {tensor.dtype}")
            if tensor.dim() != len(arg.shape):
                raise ProgramError(
                    f"input {_title(arg)}: the tensor given has the shape {list(tensor.shape)}"
                )
            tensors[name] = tensor.detach().contiguous()
        return tensors

    def _bind_symbols(self, tensors: dict[str, torch.Tensor]) -> dict[str, int]:
        """The value of every symbol, from the sizes of the inputs, checked against all of them."""
        sizes = [
            (arg, extent, size)
            for name, arg in self.signature.tensors("input").items()
            for extent, size in zip(arg.shape, tensors[name].shape, strict=True)
        ]
        values: dict[str, int] = {}
        for _ in self.signature.symbols:  # an extent may need a symbol that a later one binds
            for arg, extent, size in sizes:
                try:
                    found = extent.solve(size, values)
                except ValueError as error:
                    raise ProgramError(f"input {_title(arg)}: {error}") from None
                if found:
                    values[found[0]] = found[1]
        self._check_ranges(values)
        for arg, extent, size in sizes:
            if not extent.symbols - values.keys() and extent.evaluate(values) != size:
                shape = list(tensors[arg.name].shape)
                bound = ", ".join(f"{k} = {v}" for k, v in values.items() if k in extent.symbols)
                raise ProgramError(
                    f"input {_title(arg)}: the tensor given has the shape {shape}, "
                    f"where {extent.evaluate(values)} was expected for {size}"
                    + (f" ({bound})" if bound else "")
                )
        return values

    def _check_ranges(self, values: dict[str, int]) -> None:
        for name, (least, most) in self.signature.symbols.items():
            if name not in values:
                raise ProgramError(f"the inputs do not determine the symbol {name}")
            if values[name] < least or (most is not None and values[name] > most):
                limit = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ProgramError(
                    f"{name} is {values[name]} by the sizes of the inputs; "
                    f"the program was compiled for {limit}"
                )

    def _kv_values(self, kv: PagePool | None) -> dict[str, object]:
        if self.signature.kv is None:
            return {}
        if kv is None:
            raise ProgramError("the program keeps KV pages: give it a PagePool as `kv`")
        if kv.device is not self.device:
            raise ProgramError("the KV pool lies on another device than the program")
        if kv.kv != self.signature.kv:
            raise ProgramError(f"the page pool is for {kv.kv}, the program for {self.signature.kv}")
        return kv.launch_values()

    # ---- launch arguments

    def _argument(self, arg, symbols, tensors, outputs, kv_values) -> object:
        """An int for a scalar, (buffer, offset, bytes) for memory."""
        match arg.kind:
            case "symbol":
                return symbols[arg.name]
            case "kv":
                return kv_values[arg.field]
            case "weights":
                return (self._weight_buffer(arg), 0, self.signature.weight_bytes)
            case "workspace":
                return self._memory("workspace", self._size("the workspace", arg.bytes.evaluate(symbols)))
        tensor = (tensors if arg.kind == "input" else outputs)[arg.name]
        return self._memory(f"{arg.kind} {arg.name}", tensor.numel() * tensor.element_size())

    def _output(self, arg: TensorArg, symbols: dict[str, int]) -> torch.Tensor:
        shape = [self._size(f"output {_title(arg)}", extent.evaluate(symbols)) for extent in arg.shape]
        dtype = DTYPES[arg.dtype]
        self._size(f"output {_title(arg)}", math.prod(shape) * dtype.itemsize)
        return torch.empty(shape, dtype=dtype)

    def _size(self, what: str, value: int) -> int:
        """An extent or a number of bytes that a damaged signature may have made absurd."""
        if not 0 <= value <= self.device.total_bytes:
            raise ProgramError(
                f"{what} would have a size of {value}; the chip has {self.device.total_bytes} bytes. "
                "Compile the model again"
            )
        return value

    def _weight_buffer(self, arg: MemoryArg) -> Buffer:
        if self.weights is None:
            self.weights = self.device.alloc(max(self.signature.weight_bytes, 1))
        return self.weights

    def _memory(self, key: str, nbytes: int) -> tuple[Buffer, int, int]:
        """The first `nbytes` bytes of the buffer of this name, which grows when it must."""
        if key not in self._buffers or self._buffers[key].bytes < nbytes:
            self._buffers.pop(key, None)
            self._buffers[key] = self.device.alloc(max(nbytes, 1))
        return (self._buffers[key], 0, nbytes)


def _title(arg: TensorArg) -> str:
    return f"{arg.name!r} ({arg.dtype} {arg.text})"


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()
