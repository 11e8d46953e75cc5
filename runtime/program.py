"""A compiled model on a device: `Program.load(device, path).run(inputs)`."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from opennpu.runtime.container import Container
from opennpu.runtime.device import Buffer, Device
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.extents import Extent
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.signature import MemoryArg, Signature, TensorArg

Given = torch.Tensor | np.ndarray
Bound = tuple[TensorArg, torch.Tensor]
"""What the signature says of a tensor, and the tensor."""


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
        self,
        inputs: Mapping[str, Given],
        kv: PagePool | None = None,
        out: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Runs the program once; returns its outputs by name, on the host.

        inputs: one tensor per input of the signature, with its dtype; their sizes bind the symbols,
        as do their strides where the signature has some. out: tensors to write outputs to, needed for
        those that the signature gives strides. Raises ProgramError when they do not fit, NpuError
        when the program fails.
        """
        args, outputs = self.bind(inputs, kv, out)
        self.stream.launch(self.loaded, args)
        for name, tensor in outputs.items():
            self.stream.copy_out(_bytes(tensor), self._buffers[f"output {name}"], 0)
        self.stream.synchronize()
        return outputs

    def bind(
        self,
        inputs: Mapping[str, Given],
        kv: PagePool | None = None,
        out: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[list, dict[str, torch.Tensor]]:
        """Copies the inputs in; the launch arguments, and tensors of the outputs' shapes.

        Arguments are as `Stream.launch` takes them. Raises ProgramError when the inputs do not fit.
        """
        tensors, given = self._inputs(inputs), self._given_outputs(out or {})
        symbols = self._bind_symbols([*tensors.values(), *given.values()])
        kv_values = self._kv_values(kv)
        outputs = {
            name: given[name][1] if name in given else self._output(arg, symbols)
            for name, arg in self.signature.tensors("output").items()
        }
        held = {name: tensor for name, (_, tensor) in tensors.items()}
        args = [self._argument(arg, symbols, held, outputs, kv_values) for arg in self.signature.args]
        for name, tensor in held.items():
            self.stream.copy_in(self._buffers[f"input {name}"], 0, _bytes(tensor))
        for name, (_, tensor) in given.items():  # what lies between the elements of the output stays
            self.stream.copy_in(self._buffers[f"output {name}"], 0, _bytes(tensor))
        return args, outputs

    # ---- inputs

    def _inputs(self, inputs: Mapping[str, Given]) -> dict[str, Bound]:
        """The inputs, row-major unless they have strides; their names, dtypes and ranks checked."""
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
            tensor = _checked(arg, torch.as_tensor(inputs[name]).detach())
            tensors[name] = (arg, tensor if arg.strides else tensor.contiguous())
        return tensors

    def _given_outputs(self, out: Mapping[str, torch.Tensor]) -> dict[str, Bound]:
        """The tensors to write to, checked like inputs."""
        expected = self.signature.tensors("output")
        for name in out.keys() - expected.keys():
            raise ProgramError(f"unknown output {name!r}")
        for arg in expected.values():
            if arg.strides and arg.name not in out:
                raise ProgramError(f"output {_title(arg)} has strides: give a tensor to write to as `out`")
            if arg.name in out and not (arg.strides or out[arg.name].is_contiguous()):
                raise ProgramError(f"output {_title(arg)}: the tensor given is not row-major")
        return {name: (expected[name], _checked(expected[name], tensor)) for name, tensor in out.items()}

    def _bind_symbols(self, tensors: Iterable[Bound]) -> dict[str, int]:
        """The value of every symbol, from sizes and strides, checked against all of them."""
        sizes = [
            (arg, tensor, extent, size)
            for arg, tensor in tensors
            for extent, size in (*zip(arg.shape, tensor.shape, strict=True), *_strides(arg, tensor))
        ]
        values: dict[str, int] = {}
        for _ in self.signature.symbols:  # an extent may need a symbol that a later one binds
            for arg, _, extent, size in sizes:
                try:
                    found = extent.solve(size, values)
                except ValueError as error:
                    raise ProgramError(f"{arg.kind} {_title(arg)}: {error}") from None
                if found:
                    values[found[0]] = found[1]
        self._check_ranges(values)
        for arg, tensor, extent, size in sizes:
            if not extent.symbols - values.keys() and extent.evaluate(values) != size:
                shape = list(tensor.shape)
                bound = ", ".join(f"{k} = {v}" for k, v in values.items() if k in extent.symbols)
                raise ProgramError(
                    f"{arg.kind} {_title(arg)}: the tensor given has the shape {shape}, "
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
        return self._memory(f"{arg.kind} {arg.name}", _bytes(tensor).nbytes)

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


def _checked(arg: TensorArg, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, of the dtype and the rank that the program takes."""
    if tensor.dtype != DTYPES[arg.dtype]:
        raise ProgramError(f"{arg.kind} {_title(arg)}: the tensor given is {tensor.dtype}")
    if tensor.dim() != len(arg.shape):
        raise ProgramError(f"{arg.kind} {_title(arg)}: the tensor given has the shape {list(tensor.shape)}")
    return tensor


def _strides(arg: TensorArg, tensor: torch.Tensor) -> list[tuple[Extent, int]]:
    """(what the signature says, what the tensor has) of the dimensions in which strides count."""
    pairs = zip(arg.strides or (), tensor.stride(), tensor.shape, strict=False)
    return [(extent, stride) for extent, stride, size in pairs if size > 1]


def _bytes(tensor: torch.Tensor) -> np.ndarray:
    """The memory from the tensor's first element to its last, with what lies in between."""
    reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    span = reach + 1 if tensor.numel() else 0
    return tensor.as_strided((span,), (1,)).view(torch.uint8).numpy()
