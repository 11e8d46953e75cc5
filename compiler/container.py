"""model.npu: a safetensors file with the program, the packed weights and the signature.

`weights` comes first and starts at a multiple of 64 bytes in the file, so that a mapping of
the file can be used where it lies.
"""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

FORMAT = "1"
ALIGN = 64
_LENGTH = struct.Struct("<Q")


class ContainerError(ValueError):
    """The file is no compiled model."""


def write_model(
    path: Path,
    program: bytes,
    signature: dict,
    weights: Iterable[bytes | memoryview] | None,
    weight_bytes: int = 0,
) -> None:
    """Writes `path`; `weights` is a stream of `weight_bytes` bytes in all, None to leave them out."""
    head = _head(program, signature, None if weights is None else weight_bytes)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(head)
        for chunk in weights or ():
            file.write(chunk)
        announced = 0 if weights is None else weight_bytes
        assert file.tell() == len(head) + announced, "the weights are not of the size that was announced"
        file.write(program)
    partial.replace(path)


def model_bytes(program: bytes, signature: dict) -> bytes:
    """What `write_model` writes without weights."""
    return _head(program, signature, None) + program


def read_program(path: Path) -> bytes:
    """The program image of a model.npu, or of a file that is an image. Raises ContainerError."""
    with path.open("rb") as file:
        head = file.read(8)
        if head == b"ONPUPROG":
            return head + file.read()
        header, data_at = _read_header(file, head)
        start, end = header["program"]["data_offsets"]
        file.seek(data_at + start)
        return file.read(end - start)


def read_signature(path: Path) -> dict:
    """The signature of a model.npu. Raises ContainerError."""
    with path.open("rb") as file:
        header, _ = _read_header(file, file.read(8))
    return json.loads(header["__metadata__"]["opennpu.signature"])


def _read_header(file, head: bytes) -> tuple[dict, int]:
    remedy = "expected a model.npu made by npu-compile, or a program image"
    size = _LENGTH.unpack(head)[0] if len(head) == 8 else 0
    if not 0 < size < 100 << 20:
        raise ContainerError(f"neither a safetensors file nor a program image; {remedy}")
    try:
        header = json.loads(file.read(size))
        version = header["__metadata__"]["opennpu.format"]
        header["program"]["data_offsets"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise ContainerError(f"a safetensors file at best, without a program; {remedy}") from None
    if version != FORMAT:
        raise ContainerError(f"format {version}, this reads {FORMAT}; compile the model again")
    return header, _LENGTH.size + size


def _head(program: bytes, signature: dict, weight_bytes: int | None) -> bytes:
    """The safetensors header, padded so that the tensors behind it are aligned."""
    metadata = {"opennpu.format": FORMAT, "opennpu.signature": json.dumps(signature)}
    header: dict[str, dict] = {"__metadata__": metadata}
    start = weight_bytes or 0
    if weight_bytes is not None:
        header["weights"] = _tensor(0, start)
    header["program"] = _tensor(start, start + len(program))
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + _LENGTH.size) % ALIGN)
    return _LENGTH.pack(len(text)) + text


def _tensor(start: int, end: int) -> dict:
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
