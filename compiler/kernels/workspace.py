"""The workspace: slots for intermediate tensors in one launch buffer, reused by liveness."""

from collections import defaultdict
from dataclasses import dataclass, field

from opennpu.compiler.kernels.values import SlotBase
from opennpu.dialects.symbols import Dim, Sym, dim

ALIGN = 64


@dataclass
class Workspace:
    """Hands out slots and counts who still needs them.

    Extents are symbols, so only slots of the same size expression can take each other's
    place. A kernel ends in a barrier, so a slot may be written as soon as the last kernel
    that reads it stands before in program order.
    """

    bytes: Sym = field(default_factory=lambda: Sym.of(0))
    _free: dict[Sym, list[SlotBase]] = field(default_factory=lambda: defaultdict(list))
    _size: dict[SlotBase, Sym] = field(default_factory=dict)
    _users: dict[SlotBase, int] = field(default_factory=dict)

    def allocate(self, nbytes: Dim) -> SlotBase:
        """A slot of at least nbytes, which is free again once it was retained and as often released."""
        size = padded(nbytes)
        if not size.terms:
            size = Sym.of(ALIGN)  # a slot is named by its offset, so no two may share one
        if self._free[size]:
            slot = self._free[size].pop()
        else:
            slot = SlotBase(dim(self.bytes))
            self.bytes += size
            self._size[slot] = size
        self._users[slot] = 0
        return slot

    def retain(self, slot: SlotBase, users: int = 1) -> None:
        self._users[slot] += users

    def release(self, slot: SlotBase) -> None:
        self._users[slot] -= 1
        if self._users[slot] == 0:
            self._free[self._size[slot]].append(slot)


def padded(nbytes: Dim) -> Sym:
    """The least polynomial ≥ nbytes whose value is a multiple of 64 whatever its symbols are.

    Every coefficient goes up to a multiple of 64: `200*T` becomes `256*T`.
    """
    return Sym({monomial: -(-c // ALIGN) * ALIGN for monomial, c in Sym.of(nbytes).terms.items()})
