"""The signature of a compiled model: what its arguments, weights and KV pages are.

`Signature.from_json` checks every field; the layout is in docs/architecture.md.
"""

import json
from dataclasses import dataclass, field

from opennpu.runtime.chip import Chip, ChipError
from opennpu.runtime.extents import Extent

ITEMSIZE = {"f32": 4, "bf16": 2, "i64": 8, "i32": 4, "i8": 1, "bool": 1}
KV_BUFFERS = ("k_base", "v_base")
KV_FIELDS = (
    *KV_BUFFERS,
    "layer_stride",
    "page_stride",
    "token_stride",
    "head_stride",
    "page_size",
    "slots",
)
"""Launch arguments of the KV pages, in order: buffers, strides in bytes, page_size in tokens."""

LAYOUTS = ("rows", "packed", "table")


class SignatureError(ValueError):
    """A signature with a missing or wrong field; the message names it."""


@dataclass(frozen=True)
class TensorArg:
    """An input or output of the program; strides in elements, None where it lies row-major."""

    kind: str
    name: str
    dtype: str
    shape: tuple[Extent, ...]
    text: str  # the shape as written, for messages
    strides: tuple[Extent, ...] | None = None


@dataclass(frozen=True)
class SymbolArg:
    name: str
    kind: str = "symbol"


@dataclass(frozen=True)
class MemoryArg:
    """The weight segment or the workspace; `bytes` may depend on the symbols."""

    kind: str
    bytes: Extent


@dataclass(frozen=True)
class KvArg:
    field: str
    kind: str = "kv"


@dataclass(frozen=True)
class KvSpec:
    """What the program keeps for a token."""

    layers: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    dtype: str
    tensors: tuple[str, ...] = ()  # the inputs whose memory the pages are: keys, values; else a page pool's


@dataclass(frozen=True)
class Signature:
    chip: Chip
    symbols: dict[str, tuple[int, int | None]]  # inclusive range; None is no upper bound
    args: tuple[TensorArg | SymbolArg | MemoryArg | KvArg, ...]
    kv: KvSpec | None
    weights: tuple[dict, ...]
    weight_bytes: int  # of the segment
    model: dict = field(default_factory=dict)
    report: list = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> "Signature":
        """Raises SignatureError naming the field that is wrong."""
        try:
            root = _Reader(json.loads(text), "signature")
        except (ValueError, RecursionError) as error:
            raise SignatureError(f"the signature is not JSON: {error}") from error
        symbols = _symbols(root.get("symbols", dict, {}))
        args = tuple(_arg(entry, symbols) for entry in root.entries("args"))
        kv = _kv(root.get("kv", dict, None))
        if kv is None and any(arg.kind == "kv" for arg in args):
            root.fail("kv", "is missing although the program takes KV arguments")
        sizes = [arg.bytes for arg in args if arg.kind == "weights"]
        if len(sizes) > 1 or any(size.symbols for size in sizes):
            root.fail("args", "may have one `weights`, of a fixed size")
        weight_bytes = sizes[0].evaluate({}) if sizes else 0
        return cls(
            chip=_chip(root),
            symbols=symbols,
            args=args,
            kv=kv,
            weights=tuple(_weight(entry, weight_bytes) for entry in root.entries("weights", [])),
            weight_bytes=weight_bytes,
            model=root.get("model", dict, {}),
            report=root.get("report", list, []),
        )

    def tensors(self, kind: str) -> dict[str, TensorArg]:
        """The inputs or the outputs by name."""
        return {arg.name: arg for arg in self.args if arg.kind == kind}


_REQUIRED = object()


class _Reader:
    """An object of the JSON and the path that led to it."""

    def __init__(self, data: object, path: str):
        self.path = path
        if not isinstance(data, dict):
            raise SignatureError(f"{path} must be an object")
        self.data = data

    def get(self, key: str, type_: type, default: object = _REQUIRED):
        value = self.data.get(key)
        if value is None and default is not _REQUIRED:
            return default
        if value is None:
            self.fail(key, "is missing")
        if type(value) is not type_:
            self.fail(key, f"must be of type {type_.__name__}, not {value!r:.60}")
        return value

    def count(self, key: str, least: int = 0) -> int:
        value = self.get(key, int)
        if not least <= value < 1 << 62:
            self.fail(key, f"must be at least {least}, not {value}")
        return value

    def choice(self, key: str, choices) -> str:
        value = self.get(key, str)
        if value not in choices:
            self.fail(key, f"must be one of {', '.join(choices)}, not {value!r}")
        return value

    def dtype(self, key: str) -> str:
        if self.data.get(key) == "i1":
            return "bool"
        return self.choice(key, ITEMSIZE)

    def extent(self, value: object, key: str, symbols: dict) -> Extent:
        try:
            if type(value) not in (int, str):
                raise ValueError(f"{value!r:.60} is not an extent")
            extent = Extent.parse(value)
        except ValueError as error:
            self.fail(key, str(error))
        unknown = extent.symbols - symbols.keys()
        if unknown:
            self.fail(key, f"uses {', '.join(sorted(unknown))}, which `symbols` does not have")
        return extent

    def extents(self, key: str, values: list, symbols: dict) -> tuple[Extent, ...]:
        return tuple(self.extent(value, f"{key}[{i}]", symbols) for i, value in enumerate(values))

    def entries(self, key: str, default: object = _REQUIRED) -> "list[_Reader]":
        return [_Reader(e, f"{self.path}.{key}[{i}]") for i, e in enumerate(self.get(key, list, default))]

    def fail(self, key: str, what: str):
        raise SignatureError(f"{self.path}.{key} {what}")


def _chip(root: _Reader) -> Chip:
    try:
        return Chip.from_dict(root.get("chip", dict), "signature.chip")
    except ChipError as error:
        raise SignatureError(str(error)) from error


def _symbols(data: dict) -> dict[str, tuple[int, int | None]]:
    symbols = {}
    for name, bounds in data.items():
        ok = isinstance(bounds, list) and len(bounds) == 2 and all(type(b) is int for b in bounds)
        if not ok or bounds[0] < 0 or (bounds[1] != -1 and bounds[1] < bounds[0]):
            raise SignatureError(f"signature.symbols.{name} must be [least, most], most -1 for no bound")
        symbols[name] = (bounds[0], None if bounds[1] == -1 else bounds[1])
    return symbols


def _arg(entry: _Reader, symbols: dict) -> TensorArg | SymbolArg | MemoryArg | KvArg:
    kind = entry.choice("kind", ("input", "output", "symbol", "weights", "workspace", "kv"))
    if kind == "symbol":
        return SymbolArg(entry.choice("name", symbols))
    if kind == "kv":
        return KvArg(entry.choice("field", KV_FIELDS))
    if kind in ("weights", "workspace"):
        return MemoryArg(kind, entry.extent(entry.data.get("bytes"), "bytes", symbols))
    shape, strides = entry.get("shape", list), entry.get("strides", list, None)
    extents = entry.extents("shape", shape, symbols)
    if strides is not None:
        strides = entry.extents("strides", strides, symbols)
        if len(strides) != len(extents):
            entry.fail("strides", f"must be {len(extents)}, one a dimension")
    text = "[" + ", ".join(map(str, shape)) + "]"
    return TensorArg(kind, entry.get("name", str), entry.dtype("dtype"), extents, text, strides)


def _kv(data: dict | None) -> KvSpec | None:
    if data is None:
        return None
    entry = _Reader(data, "signature.kv")
    counts = {key: entry.count(key, 1) for key in ("layers", "kv_heads", "head_dim", "v_head_dim")}
    tensors = tuple(entry.get("tensors", list, []))
    if len(tensors) not in (0, 2) or not all(isinstance(name, str) for name in tensors):
        entry.fail("tensors", "are two names, of keys and of values")
    return KvSpec(**counts, dtype=entry.dtype("dtype"), tensors=tensors)


def _weight(entry: _Reader, segment: int) -> dict:
    entry.choice("layout", LAYOUTS)
    entry.dtype("dtype")
    if entry.count("offset") + entry.count("bytes") > segment:
        entry.fail("offset", f"and bytes reach past the segment of {segment} bytes")
    return entry.data
