"""Tiles, loops and buffers of a vector program.

The domain's dimensions become a few *axes*: neighbours that every operand steps as one
are merged. Each axis has a tile; an axis longer than its tile is a loop, and one axis is
shared out over the cores. A node depends on the axes it is not repeated along (its
*pattern*), so it is computed just inside the innermost loop over one of those: a [C]
weight is loaded once, before all loops.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, prod

from opennpu.compiler.kernels.values import ITEMSIZE
from opennpu.compiler.kernels.vector_program import Node, VectorProgram
from opennpu.compiler.kernels.views import Strided, collapse_groups, row_major
from opennpu.compiler.tile_ir import ALIGN
from opennpu.dialects.symbols import Dim, Ranges, Sym, num_elements

BURST = 64  # elements: a DMA run worth having, and the grain of a share of a row
PIECE = 1024  # elements of a row that is cut: whatever else there is, as it decides how a sum is rounded
MAX_WIDE = 3  # dimensions of a vector instruction


class DoesNotFit(Exception):
    """The smallest tiles do not fit in scratchpad: what does not, and the remedy."""


@dataclass
class Axis:
    """One loop dimension. `bound` is the greatest extent that one core sees (infinite: there is none)."""

    extent: Dim
    bound: float
    tile: int = 1
    split: bool = False
    cut: bool = False  # a row that is reduced piece by piece
    grain: int = 1  # a core's share is a multiple of it

    @property
    def looped(self) -> bool:
        may_be_empty = self.tile == 1 and self.extent != 1  # an instruction does not count such an axis
        return self.split or self.cut or self.tile < self.bound or may_be_empty


@dataclass(eq=False)
class Slot:
    """A buffer in scratchpad, made in loop `level` (0: before all loops); nodes may share it in turn."""

    level: int
    dtype: str
    elements: int
    by_dma: bool = False  # DMA fills or empties it: worth two copies inside a loop

    @property
    def bytes(self) -> int:
        return -(-self.elements * ITEMSIZE[self.dtype] // ALIGN) * ALIGN


@dataclass
class Plan:
    """How to run a program: `order` lists the nodes outermost loop first, each in its `level`.

    Where the row is cut, the slot of a reduction gathers what `partials` holds of each piece.
    """

    program: VectorProgram
    axes: list[Axis]
    groups: list[tuple[int, ...]]  # domain dimensions of each axis, counted from the right
    patterns: dict[Node, tuple[bool, ...]]
    levels: dict[Node, int] = field(default_factory=dict)
    slots: dict[Node, Slot] = field(default_factory=dict)
    partials: dict[Node, Slot] = field(default_factory=dict)

    @property
    def cut(self) -> bool:
        return self.axes[-1].cut

    @property
    def order(self) -> list[Node]:
        return sorted(self.patterns, key=self.levels.__getitem__)

    @property
    def wide(self) -> list[int]:
        """The axes that the vector instructions walk, at most three; rows end in the last axis."""
        last = len(self.axes) - 1
        return [i for i, a in enumerate(self.axes) if a.tile > 1 or (i == last and self.program.is_row_wise)]

    def stored(self, node: Node) -> bool:
        return any(source(n) is node for n, _ in self.program.outputs)

    def repeated_loops(self, node: Node) -> list[int]:
        """Looped axes along which a node is the same."""
        return [i for i, axis in enumerate(self.axes) if axis.looped and not self.patterns[node][i]]

    def axis_strides(self, view: Strided) -> list[Dim]:
        """The view's stride along each axis, in elements; 0 where it repeats."""
        strides = aligned_strides(view)
        return [strides.get(group[-1], 0) if group else 0 for group in self.groups]

    def layout(self, node: Node) -> list[int]:
        """The stride of a node's buffer along each axis, in bytes; 0 where it repeats.

        An input keeps the fastest dimension it has in HBM, so that DMA moves long runs;
        everything else lies as the domain does.
        """
        pattern = self.patterns[node]
        axes = [i for i, varies in enumerate(pattern) if varies]
        if node.kind == "input":
            hbm = self.axis_strides(node.value)
            axes.sort(key=lambda i: hbm[i] == 1)
        strides, step = [0] * len(pattern), ITEMSIZE[node.dtype]
        for i in reversed(axes):
            strides[i] = step
            step *= self.axes[i].tile
        return strides


def make_plan(program: VectorProgram, ranges: Ranges, cores: int, spm_bytes: int, cut: bool = False) -> Plan:
    """Chooses axes, tiles and buffers. DoesNotFit where not even the smallest tiles do: a whole row.

    With `cut` rows are reduced in pieces; no other node may then read a reduction.
    """
    _legalise(program)
    plan = _axes(program, ranges)
    plan.axes[-1].cut = cut
    _split(plan, cores)
    for copies in (2, 1):  # room to load one tile while computing on another, where it can be had
        if _choose_tiles(plan, spm_bytes, copies):
            return plan
    raise DoesNotFit(*_does_not_fit(plan, spm_bytes))


def source(node: Node) -> Node:
    """The node that holds the data: broadcasts are read in place."""
    while node.kind == "broadcast":
        node = node.inputs[0]
    return node


def aligned_strides(view: Strided) -> dict[int, Dim]:
    """Stride by dimension counted from the right, dimensions of extent 1 as repeated."""
    rank = view.rank
    return {d - rank: 0 if view.shape[d] == 1 else view.strides[d] for d in range(rank)}


# ---- axes


def _legalise(program: VectorProgram) -> None:
    """Outputs that repeat a value, or lie in another order than their source, get a copy of it."""
    patterns = domain_patterns(program)
    for i, (node, view) in enumerate(program.outputs):
        data, strides = source(node), aligned_strides(view)
        repeated = any(strides.get(d, 0) != 0 and not varies for d, varies in patterns[data].items())
        if repeated or (data.kind == "input" and _is_permuted(data.value)):
            program.outputs[i] = (program.spread(node, view.shape), view)


def _is_permuted(view: Strided) -> bool:
    """Whether another dimension than the last that counts is the fastest."""
    strides = [s for s in aligned_strides(view).values() if s != 0]
    return 1 in strides[:-1] and strides[-1] != 1


def domain_patterns(program: VectorProgram) -> dict[Node, dict[int, bool]]:
    """Along which dimensions (counted from the right) each node varies."""
    rank, patterns = len(program.domain), {}
    for node in program.nodes:
        if node.kind == "input":
            strides = aligned_strides(node.value)
            varies = {d for d, s in strides.items() if s != 0}
        elif node.kind == "iota":
            varies = {node.dim} if node.shape[node.dim] != 1 else set()
        else:
            varies = {d for a in node.inputs for d, v in patterns[a].items() if v}
            if node.is_spread:
                varies = {d for d in range(-len(node.shape), 0) if node.shape[d] != 1}
        if node.kind == "reduce":
            varies -= {-1}
        patterns[node] = {d: d in varies for d in range(-rank, 0)}
    return patterns


def _axes(program: VectorProgram, ranges: Ranges) -> Plan:
    domain, patterns = program.domain, domain_patterns(program)
    rank, whole = len(domain), row_major(domain)
    nodes = [node for node in program.nodes if node.kind != "broadcast"]
    steps: list[list[Dim]] = [
        [whole[d] if patterns[node][d] else 0 for d in range(-rank, 0)] for node in nodes
    ]
    views = [n.value for n in nodes if n.kind == "input"] + [view for _, view in program.outputs]
    steps += [[aligned_strides(view).get(d, 0) for d in range(-rank, 0)] for view in views]
    merged = collapse_groups(domain, steps, keep_last=program.is_row_wise)
    groups = [tuple(d - rank for d in group) for group in merged]
    needed = 2 if program.is_row_wise else 1
    groups = [()] * (needed - len(groups)) + groups  # at least one axis to share out
    axes = []
    for group in groups:
        extent = num_elements(domain[d] for d in group)
        upper = Sym.of(extent).upper_bound(ranges)
        axes.append(Axis(extent, inf if upper is None else upper))
    varies = {
        node: tuple(patterns[node][g[-1]] if g else not node.is_scalar for g in groups) for node in nodes
    }
    return Plan(program, axes, groups, varies)


def _split(plan: Plan, cores: int) -> None:
    """Shares the axis of most pieces over the cores; never the inside of a row that is reduced."""
    last = plan.axes[-1]
    last.grain = BURST
    candidates = plan.axes[:-1] if plan.program.is_row_wise else plan.axes
    axis = max(candidates, key=lambda axis: axis.bound / axis.grain)
    axis.split = True
    if axis.bound != inf:
        axis.bound = -(-axis.bound // (cores * axis.grain)) * axis.grain


# ---- tiles


def _choose_tiles(plan: Plan, spm_bytes: int, copies: int) -> bool:
    """Grows the tiles while everything fits; False when the smallest does not."""
    row = plan.axes[-1]
    for axis in plan.axes:
        axis.tile = 1
    if plan.program.is_row_wise and not plan.cut:
        if row.bound == inf:
            return False
        row.tile = max(1, int(row.bound))

    def fits() -> bool:
        assign_slots(plan)
        slots = {*plan.slots.values(), *plan.partials.values()}
        return sum(s.bytes * (copies if s.level and s.by_dma else 1) for s in slots) <= spm_bytes

    if plan.cut:
        row.tile = PIECE
        while row.tile > 1 and not fits():
            row.tile //= 2
    if not fits():
        return False
    last = len(plan.axes) - 1
    for i in _fast_axes(plan):
        _grow(plan, i, BURST, fits)
    for i in range(last, -1, -1):
        _grow(plan, i, inf, fits)
    return fits()


def _fast_axes(plan: Plan) -> list[int]:
    """The last axis, and those along which an operand is contiguous."""
    views = [n.value for n in plan.patterns if n.kind == "input"] + [v for _, v in plan.program.outputs]
    fast = {i for view in views for i, s in enumerate(plan.axis_strides(view)) if s == 1}
    return sorted(fast | {len(plan.axes) - 1}, reverse=True)


def _grow(plan: Plan, i: int, target: float, fits: Callable[[], bool]) -> None:
    """The largest tile of axis i up to `target` that fits, with at most three wide axes; not of a cut row."""
    axis = plan.axes[i]
    if axis.cut or (i not in plan.wide and len(plan.wide) == MAX_WIDE):
        return
    low, high = axis.tile, int(min(target, axis.bound, 1 << 24))
    while low < high:
        axis.tile = (low + high + 1) // 2
        low, high = (axis.tile, high) if fits() else (low, axis.tile - 1)
    grain = BURST if low > BURST and low < axis.bound else 1
    axis.tile = low - low % grain


def assign_slots(plan: Plan) -> None:
    """Levels and buffers for the tiles of the moment; a buffer is used again once its node is dead."""
    _assign_levels(plan)
    order = plan.order
    last_use = {source(a): i for i, node in enumerate(order) for a in node.inputs}
    plan.slots.clear()
    plan.partials.clear()
    free: dict[tuple, list[Slot]] = defaultdict(list)
    for i, node in enumerate(order):
        level, elements = plan.levels[node], _elements(plan, node)
        if plan.cut and node.kind == "reduce":
            plan.slots[node] = Slot(level - 1, node.dtype, elements, by_dma=True)
            plan.partials[node] = Slot(level, node.dtype, elements)
            continue
        dying = [
            a
            for a in dict.fromkeys(map(source, node.inputs))
            if last_use[a] == i and plan.slots[a].level == level and not plan.stored(a)
        ]
        spare = free[level, node.dtype, elements]
        in_place = next((a for a in dying if _can_overwrite(plan, node, a)), None)
        if in_place:
            plan.slots[node] = plan.slots[in_place]
            dying.remove(in_place)
        else:
            plan.slots[node] = spare.pop() if spare else Slot(level, node.dtype, elements)
        plan.slots[node].by_dma |= node.kind == "input" or plan.stored(node)
        for a in dying:
            slot = plan.slots[a]
            free[slot.level, slot.dtype, slot.elements].append(slot)


def _assign_levels(plan: Plan) -> None:
    """The innermost loop that a node depends on, itself or through what it reads; 0 before all."""
    loops = [i for i, axis in enumerate(plan.axes) if axis.looped]
    for node in plan.patterns:
        own = [depth for depth, i in enumerate(loops, 1) if plan.patterns[node][i]]
        if plan.cut and node.kind == "reduce":
            own.append(len(loops))
        plan.levels[node] = max([*own, *(plan.levels[source(a)] for a in node.inputs)], default=0)


def _can_overwrite(plan: Plan, node: Node, a: Node) -> bool:
    """v_unary and v_binary may write where they read, element for element."""
    return node.kind in ("unary", "binary") and node.dtype == a.dtype and plan.layout(node) == plan.layout(a)


def _elements(plan: Plan, node: Node) -> int:
    return prod(axis.tile for axis, varies in zip(plan.axes, plan.patterns[node], strict=True) if varies)


def _does_not_fit(plan: Plan, spm_bytes: int) -> tuple[str, str]:
    need = sum(slot.bytes for slot in {*plan.slots.values(), *plan.partials.values()})
    return (
        f"its smallest tiles need {need} bytes of scratchpad, the chip has {spm_bytes} per core for it",
        "choose a chip with more scratchpad",
    )
