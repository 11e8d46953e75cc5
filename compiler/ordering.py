"""Which accesses of a kernel must be ordered, and by which edges between its queues.

The kernel is a tree: blocks of items; an item is an engine operation or a loop or `if` with a
block. `find_edges` walks the tree as the sequencer would, every loop a few times round, with a
vector clock per queue: clock[b][a] is the time of the last access of queue a that queue b is
known to come after (Lamport 1978; vector clocks after Fidge and Mattern 1988). Where an
operation meets an access that it conflicts with and does not come after, an edge is added:

  Forward   in one block: set after item x on queue a, wait before the later item y on queue b
  Carried   in a loop body: y of an iteration comes after x of the iteration `slots` before

An `if` with the attribute `npu_tile.first` runs in the first iteration of the loop right around it only.

The flag of a carried edge is given `slots` credits at the start of the kernel and drained at its
end, so a loop that runs again goes on where it stopped. An edge that others imply is never added.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from opennpu.compiler.tile_ir import body_of, buffer_of, integer
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.dialects.locations import describe
from opennpu.dialects.npu_tile import QUEUES, accesses
from opennpu.dialects.npu_tile.effects import spec_of
from torch_mlir import ir

Clock = dict[str, int]


@dataclass(eq=False)
class Block:
    """The items of a kernel, of a loop body or of an `if`."""

    is_loop: bool
    items: list["Item"] = field(default_factory=list)
    slots: int = 1  # the most of a buffer that the loop rotates

    @property
    def most_trips(self) -> int:
        """After how many rounds no pair of accesses is new."""
        return self.slots + 1 if self.is_loop else 1


@dataclass(eq=False)
class Item:
    """An engine operation with its queue and accesses, or a loop or `if` with its block."""

    op: ir.Operation
    home: Block
    index: int
    queue: str = ""
    touches: tuple["Touch", ...] = ()
    inner: Block | None = None

    @property
    def only_first(self) -> bool:
        """Whether it is an `if` that holds in the first iteration of the loop around it only."""
        return "npu_tile.first" in self.op.attributes

    @cached_property
    def queues(self) -> tuple[str, ...]:
        """The queues that work on it."""
        if self.inner is None:
            return (self.queue,)
        return tuple(dict.fromkeys(queue for item in self.inner.items for queue in item.queues))


@dataclass(frozen=True)
class Touch:
    """An access; the bodies of `loops` rotate the buffer's slots. Outside of them all slots are touched."""

    buffer: ir.Operation
    slots: int
    loops: tuple[Block, ...]
    writes: bool


@dataclass(frozen=True)
class Edge:
    """Queue `target` does item `y` after queue `source` has done item `x`; both in `block`."""

    block: Block
    x: Item
    y: Item
    source: str
    target: str
    slots: int = 0  # 0: forward; else carried over so many iterations

    @property
    def carried(self) -> bool:
        return self.slots > 0


def find_edges(kernel: ir.Operation) -> list[Edge]:
    """A set of edges that orders every conflicting pair of accesses of the kernel."""
    root = _block(body_of(kernel), False, {})
    most_slots = max((t.slots for item in _leaves(root) for t in item.touches), default=1)
    edges: dict[Edge, None] = {}
    known = -1
    while known != len(edges):
        known = len(edges)
        for trips in (most_slots + 1, 3, 2, 1):
            _Walk(edges, trips).block(root, ())
    return list(edges)


# ---- the tree


Rotating = dict[int | None, tuple[Block, ...]]
"""The loop bodies that rotate slots, by the number of their turns."""


def _block(body: ir.Block, is_loop: bool, rotating: Rotating) -> Block:
    """The tree of a block, which adds to `rotating`."""
    block = Block(is_loop)
    for op in body.operations:
        if op.operation.name == "npu_tile.slot":
            number = integer(op.operation, "loop", None)
            rotating[number] = (*rotating.get(number, ()), block)
            block.slots = max(block.slots, integer(op.operation, "slots", 1))
        elif (item := _item(op.operation, block, rotating)) is not None:
            block.items.append(item)
    return block


def _item(op: ir.Operation, home: Block, rotating: Rotating) -> Item | None:
    index = len(home.items)
    spec = spec_of(op)
    if spec is not None:
        touches = tuple(_touch(a.buffer.owner, a.writes, rotating) for a in accesses(op))
        return Item(op, home, index, spec.engine, touches)
    if op.name not in ("scf.for", "scf.if"):
        return None
    if any(len(list(region.blocks)) for region in list(op.regions)[1:]):
        raise CompileError(Problem("scf.if with an else cannot be synchronised", describe(op.location)))
    inner = _block(body_of(op), op.name == "scf.for", rotating)
    return Item(op, home, index, inner=inner) if inner.items else None


def _touch(alloc: ir.Operation, writes: bool, rotating: Rotating) -> Touch:
    buffer = buffer_of(alloc.operation)
    return Touch(buffer.op, buffer.slots, rotating.get(buffer.loop, ()), writes)


def _leaves(block: Block) -> Iterator[Item]:
    for item in block.items:
        yield from _leaves(item.inner) if item.inner else [item]


# ---- the walk


@dataclass(frozen=True)
class _Step:
    """One level of the way to an item: the block, which entry into it this was, the item."""

    block: Block
    entry: int
    item: Item


@dataclass(frozen=True)
class _Access:
    """When and where a queue last read or wrote a slot."""

    time: int
    path: tuple[_Step, ...]


@dataclass(frozen=True)
class _Passed:
    """What a queue had behind it when it passed an item, in iteration `iteration` of the item's loop."""

    time: int
    iteration: int
    clock: Clock


class _Walk:
    """One run through a kernel, every loop `trips` times; adds the edges that it finds missing."""

    def __init__(self, edges: dict[Edge, None], trips: int):
        self.edges = edges
        self.trips = trips
        self.time = 0
        self.entries = 0
        self.iterations: dict[Block | None, int] = defaultdict(int)
        self.last_time: Clock = dict.fromkeys(QUEUES, 0)
        self.clocks: dict[str, Clock] = {queue: dict.fromkeys(QUEUES, 0) for queue in QUEUES}
        self.last: dict[tuple, dict[tuple[str, bool], _Access]] = defaultdict(dict)
        self.passed: dict[tuple[Item, str], deque[_Passed]] = defaultdict(lambda: deque(maxlen=trips + 1))
        self.waits: dict[Item, list[Edge]] = defaultdict(list)
        self.before: list[dict[str, Clock]] = []  # of each loop or `if` around: what was known before it
        for edge in edges:
            self.waits[edge.y].append(edge)

    def block(self, block: Block, path: tuple[_Step, ...]) -> None:
        self.entries += 1
        entry = self.entries
        for item in block.items:
            for edge in self.waits[item]:
                self._wait(edge)
            if item.inner is None:
                self._operation(item, (*path, _Step(block, entry, item)))
            elif not item.only_first or self.iterations[block] == 0:
                self._group(item, (*path, _Step(block, entry, item)))
            iteration = self.iterations[block]
            for queue in item.queues:
                clock = {**self.clocks[queue], queue: self.last_time[queue]}
                self.passed[item, queue].append(_Passed(self.time, iteration, clock))

    def _operation(self, item: Item, path: tuple[_Step, ...]) -> None:
        self.time += 1
        clock = self.clocks[item.queue]
        for touch in item.touches:
            for slot in self._slots(touch, path):
                last = self.last[touch.buffer, slot]
                for (queue, wrote), access in sorted(last.items(), key=lambda entry: -entry[1].time):
                    conflict = queue != item.queue and (wrote or touch.writes)
                    if conflict and access.time > clock[queue]:
                        self._order(access, queue, item.queue, path, touch)
                last[item.queue, touch.writes] = _Access(self.time, path)
        self.last_time[item.queue] = self.time

    def _slots(self, touch: Touch, path: tuple[_Step, ...]) -> Iterable[int]:
        """The slots that are touched."""
        around = next((step.block for step in path if step.block in touch.loops), None)
        return [self.iterations[around] % touch.slots] if around else range(touch.slots)

    def _group(self, item: Item, path: tuple[_Step, ...]) -> None:
        """A loop or an `if`, which may also not run: then only what was known before it is known."""
        before = {queue: dict(clock) for queue, clock in self.clocks.items()}
        self.before.append(before)
        last_time = dict(self.last_time)
        for iteration in range(min(self.trips, item.inner.most_trips)):
            self.iterations[item.inner] = iteration
            self.block(item.inner, path)
        self.before.pop()
        for queue, clock in self.clocks.items():
            for other in QUEUES:
                if before[queue][other] < last_time[other]:
                    clock[other] = before[queue][other]

    def _order(
        self, access: _Access, source: str, target: str, path: tuple[_Step, ...], touch: Touch
    ) -> None:
        """Adds the edge that makes queue `target`, now at `path`, come after an access of `source`."""
        depth, x, y = next(
            (depth, p, q)
            for depth, (p, q) in enumerate(zip(access.path, path, strict=False))
            if p.entry != q.entry or p.item is not q.item
        )
        slots = 0
        if x.item.index >= y.item.index:
            slots = touch.slots if y.block in touch.loops else 1
        edge = Edge(y.block, x.item, y.item, source, target, slots)
        self.edges[edge] = None
        self.waits[y.item].append(edge)
        passed = next(p for p in self.passed[x.item, source] if p.time >= access.time)
        for clocks in (self.clocks, *self.before[depth:]):  # y, which waits, may be a loop or an `if` around
            _learn(clocks[target], passed)

    def _wait(self, edge: Edge) -> None:
        passed = self.passed[edge.x, edge.source]
        if edge.slots > 1:
            slot = self.iterations[edge.block] % edge.slots
            passed = [p for p in passed if p.iteration % edge.slots == slot]
        if passed:
            _learn(self.clocks[edge.target], passed[-1])


def _learn(clock: Clock, passed: _Passed) -> None:
    for other, time in passed.clock.items():
        clock[other] = max(clock[other], time)
