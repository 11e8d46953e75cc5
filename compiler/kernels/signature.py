"""The launch arguments of a program: their order, kinds and names."""

from collections.abc import Sequence

from opennpu.dialects.symbols import Dim
from opennpu.runtime.signature import KV_FIELDS


class Arguments:
    """The list `args` of the signature (docs/architecture.md), found by keys such as `symbol:T`."""

    def __init__(self) -> None:
        self.entries: list[dict] = []
        self._index: dict[str, int] = {}

    def tensor(
        self, kind: str, name: str, dtype: str, shape: Sequence[Dim], strides: Sequence[Dim] | None = None
    ) -> str:
        """Adds an `input` or `output`, with strides in elements unless it is row-major; returns its key."""
        entry = {"kind": kind, "name": name, "dtype": dtype, "shape": [str(d) for d in shape]}
        if strides is not None:
            entry["strides"] = [str(s) for s in strides]
        return self._add(f"{kind}:{name}", entry)

    def symbol(self, name: str) -> str:
        return self._add(f"symbol:{name}", {"kind": "symbol", "name": name})

    def memory(self, kind: str) -> str:
        """Adds `weights` or `workspace`; its size is known at the end."""
        return self._add(kind, {"kind": kind})

    def kv(self) -> None:
        for name in KV_FIELDS:
            self._add(f"kv:{name}", {"kind": "kv", "field": name})

    @property
    def keys(self) -> list[str]:
        return list(self._index)

    def set_bytes(self, key: str, nbytes: Dim) -> None:
        """The size of a memory argument: an int, or the text of a polynomial in the symbols."""
        self.entries[self._index[key]]["bytes"] = nbytes if isinstance(nbytes, int) else str(nbytes)

    def _add(self, key: str, entry: dict) -> str:
        if key in self._index:
            raise ValueError(f"two launch arguments are named {key}")
        self._index[key] = len(self.entries)
        self.entries.append(entry)
        return key
