"""Reading model.npu: a safetensors file of program image, packed weights and signature."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from opennpu.runtime.signature import Signature, SignatureError
from safetensors import SafetensorError, safe_open

FORMAT = "1"
CHUNK = 16 << 20  # bytes read at a time


class ContainerError(ValueError):
    """A file that is no usable model.npu; the message names the file and the field."""


@dataclass(frozen=True)
class Container:
    """An opened model.npu. The program is not checked here: the driver does it at load."""

    path: Path
    program: bytes
    signature: Signature
    has_weights: bool

    @classmethod
    def open(cls, path: str | Path) -> "Container":
        """Raises ContainerError."""
        path = Path(path)
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                version = metadata.get("opennpu.format")
                if version != FORMAT:
                    raise ContainerError(
                        f"{path}: no compiled model of format {FORMAT} (opennpu.format is {version!r}): "
                        "compile it with npu-compile"
                    )
                names = set(file.keys())
                for name in names & {"program", "weights"}:
                    piece = file.get_slice(name)
                    if piece.get_dtype() != "U8" or len(piece.get_shape()) != 1:
                        raise ContainerError(f"{path}: the tensor `{name}` must be one-dimensional u8")
                if "program" not in names:
                    raise ContainerError(f"{path}: the tensor `program` is missing")
                signature = Signature.from_json(metadata.get("opennpu.signature", ""))
                container = cls(path, file.get_tensor("program").tobytes(), signature, "weights" in names)
        except (SafetensorError, OSError) as error:
            raise ContainerError(
                f"{path}: not a readable safetensors file: {error}. Make one with npu-compile"
            ) from error
        except SignatureError as error:
            raise ContainerError(f"{path}: {error}") from error
        container._check_weights()
        return container

    def weight_chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The weight segment in pieces: (offset, uint8 [bytes])."""
        with safe_open(self.path, framework="np") as file:
            piece = file.get_slice("weights")
            for offset in range(0, self.signature.weight_bytes, CHUNK):
                yield offset, piece[offset : min(offset + CHUNK, self.signature.weight_bytes)]

    def _check_weights(self) -> None:
        if not self.has_weights:
            return
        with safe_open(self.path, framework="np") as file:
            (size,) = file.get_slice("weights").get_shape()
        if size != self.signature.weight_bytes:
            raise ContainerError(
                f"{self.path}: the weights have {size} bytes, "
                f"the signature says {self.signature.weight_bytes}"
            )
