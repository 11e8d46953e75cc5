"""Parameters packed into weight segments in chip memory.

A segment belongs to the parameters that it was packed from: it is packed again where one of them
has changed in place or got other memory, and given back when one of them is gone. Programs
that pack the same parameters alike share it.
"""

import json
import weakref
from collections.abc import Sequence

import torch
from opennpu.compiler.weights import check_weights, pieces
from opennpu.runtime.signature import Signature


class Segment:
    """The packed weights of a program, one `torch.uint8` tensor on the device of the parameters.

    The program knows params as param0, param1, … . Changes of inference tensors, which count no versions,
    are not noticed.
    """

    def __init__(self, signature: Signature, params: Sequence[torch.Tensor], device: torch.device):
        check_weights(signature.weights, _named(params))
        self._signature = signature
        self._ids: list[int] | None = list(map(id, params))
        self._params = [weakref.ref(p, self._release) for p in params]
        self._versions: list[tuple[int, int]] | None = None  # nothing is packed yet
        memory = torch.empty(signature.weight_bytes, dtype=torch.uint8, device=device)
        self.tensor: torch.Tensor | None = memory

    def belongs_to(self, params: Sequence[torch.Tensor]) -> bool:
        return list(map(id, params)) == self._ids

    def update(self, params: Sequence[torch.Tensor]) -> None:
        """Packs what has changed since the last time."""
        versions = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in params]
        if versions == self._versions:
            return
        values = _named(params)
        entries = self._signature.weights
        if self._versions is not None:
            states = zip(values, self._versions, versions, strict=True)
            changed = {name for name, old, new in states if old != new}
            entries = [e for e in entries if not changed.isdisjoint(e.get("names", ()))]
        for offset, piece in pieces(entries, values, self._signature.chip):
            data = torch.frombuffer(bytearray(piece), dtype=torch.uint8)
            self.tensor[offset : offset + len(data)].copy_(data)
        self._versions = versions

    def _release(self, _: weakref.ref) -> None:
        self._ids = self.tensor = None


class Segments:
    """The segments in use on all devices."""

    def __init__(self) -> None:
        self._segments: weakref.WeakValueDictionary[tuple, Segment] = weakref.WeakValueDictionary()

    def find(self, signature: Signature, params: Sequence[torch.Tensor], device: torch.device) -> Segment:
        """The segment of these parameters; made, and not yet packed, where there is none."""
        key = (json.dumps(signature.weights), signature.weight_bytes, device, *map(id, params))
        segment = self._segments.get(key)
        if segment is None or not segment.belongs_to(params):
            segment = self._segments[key] = Segment(signature, params, device)
        return segment


def _named(params: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"param{i}": param for i, param in enumerate(params)}
