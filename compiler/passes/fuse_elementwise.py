"""npu-fuse-elementwise: ops over one domain of rows become one vector kernel, `npu.fused`.

What a region holds
  Compute ops: unary, binary, select, cast; reduce along the last dimension; softmax,
  rms_norm, layer_norm, add_rms_norm. Free ops, which cost nothing where they are used and
  never begin a kernel: constant, extent, iota, broadcast. Other views (reshape, transpose, slice)
  stay outside, as strides of the kernel's reads.

  A region has one domain [rows…, C]. The shape of every value in it, and of every value it
  reads from outside, broadcasts to the domain by numpy's rules (aligned on the right). A
  value that it yields has all the rows of the domain and C or 1 columns; only a reduction
  without keepdim, whose result nothing in the region uses, drops the last dimension. The
  types say where values are rounded.

How groups are found
  Ops in order; each joins the groups of its operands as long as (1) the domains agree, or
  the producer's is smaller and nothing outside needs it, (2) no path leads from the
  producer's group through other ops to this one, and (3) the results fit. Every free op is
  first copied for each of its users.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import EFFECTS, attr, before, blocks, definition, users
from opennpu.dialects.npu import ops as npu
from opennpu.dialects.npu.dialect import Invalid, broadcast, fill_slots
from opennpu.dialects.npu.structure import SLOTS, captured
from opennpu.dialects.symbols import Dim, dims_of
from torch_mlir import ir

FREE = frozenset({"npu.constant", "npu.extent", "npu.iota", "npu.broadcast"})
COMPUTE = frozenset(
    f"npu.{name}"
    for name in (
        *("unary", "binary", "select", "cast", "reduce"),
        *("softmax", "rms_norm", "layer_norm", "add_rms_norm"),
    )
)

Shape = tuple[Dim, ...]


@register_pass("npu-fuse-elementwise", "element-wise and row-wise ops over one domain → fused vector kernels")
def run(module: ir.Module) -> None:
    """Groups the ops of every block; a lone compute op stays as it is."""
    for block in list(blocks(module)):
        _copy_free_ops(block)
        graph = Graph(block)
        for index in range(len(graph.ops)):
            if domain_of(graph.ops[index]) is not None:
                graph.join_producers(index)
        if any(len(group.members) > 1 for group in graph.group_of):
            _rebuild(graph)


def domain_of(op: ir.Operation) -> Shape | None:
    """The domain of a compute op; None for an op that cannot be in a kernel, or is free."""
    if op.name not in COMPUTE:
        return None
    if op.name != "npu.reduce":
        return dims_of(op.results[0].type)
    shape = dims_of(op.operands[0].type)
    return shape if attr(op, "dim") == len(shape) - 1 else None


def _copy_free_ops(block: ir.Block) -> None:
    """Gives every compute op its own constants, iotas and broadcasts."""
    for op in reversed([op.operation for op in block.operations]):
        if domain_of(op) is not None:
            _own_operands(op)
        elif op.name in FREE and not users(op.results[0]):
            op.erase()


def _own_operands(op: ir.Operation) -> None:
    for i, operand in enumerate(op.operands):
        free = definition(operand, *FREE)
        if free is None:
            continue
        if len(users(operand)) > 1:
            free = free.clone(ir.InsertionPoint(op))
            op.operands[i] = free.results[0]
        _own_operands(free)


# ---- groups


@dataclass(eq=False)
class Group:
    """A set of ops that becomes one kernel; an op that is in no kernel is a group of its own."""

    members: list[int]
    domain: Shape | None  # None: not a kernel

    @property
    def first(self) -> int:
        return min(self.members)

    @property
    def last(self) -> int:
        return max(self.members)


class Graph:
    """The ops of a block by index, what each needs, and the group that each is in."""

    def __init__(self, block: ir.Block):
        self.block = block
        self.ops = [op.operation for op in block.operations][:-1]
        source = {result: i for i, op in enumerate(self.ops) for result in op.results}
        self.operands = [[source[v] for v in _reads(op) if v in source] for op in self.ops]
        self.needs = [list(operands) for operands in self.operands]
        effects = [i for i, op in enumerate(self.ops) if op.name in EFFECTS]
        for earlier, later in pairwise(effects):
            self.needs[later].append(earlier)
        self.users = [[] for _ in self.ops]
        for i, operands in enumerate(self.operands):
            for operand in operands:
                self.users[operand].append(i)
        for result in block.operations[len(self.ops)].operands:
            if result in source:
                self.users[source[result]].append(len(self.ops))
        self.group_of = [Group([i], domain_of(op)) for i, op in enumerate(self.ops)]

    def join_producers(self, index: int) -> None:
        """Merges the op's group with those of its operands, the latest first, seen through free ops."""
        pending = list(self.operands[index])
        while pending:
            pending.sort()
            producer = pending.pop()
            if self.ops[producer].name in FREE:
                if self.users[producer] and len(self.users[producer]) == 1:
                    self._merge(self.group_of[producer], self.group_of[index], self.group_of[index].domain)
                    pending += self.operands[producer]
                continue
            mine, other = self.group_of[index], self.group_of[producer]
            if mine is not other and (domain := self._common_domain(other, mine)) is not None:
                self._merge(other, mine, domain)

    def _common_domain(self, producer: Group, consumer: Group) -> Shape | None:
        """The domain of the two groups as one; None when they must stay apart."""
        if producer.domain is None:
            return None
        domain = _same_rows(producer.domain, consumer.domain)
        if domain is None and self._is_private(producer, consumer):
            domain = _repeated(producer.domain, consumer.domain)
        apart = domain is None or self._loses_columns(producer, consumer) or self._detour(producer, consumer)
        return None if apart or self._count_outputs(producer, consumer) > SLOTS else domain

    def _is_private(self, producer: Group, consumer: Group) -> bool:
        """Nothing but the two groups uses the producer's values."""
        both = {*producer.members, *consumer.members}
        return all(user in both for member in producer.members for user in self.users[member])

    def _loses_columns(self, producer: Group, consumer: Group) -> bool:
        """Whether the consumer uses a reduction that drops the last dimension."""
        return any(
            self.ops[m].name == "npu.reduce" and not attr(self.ops[m], "keepdim") and user in consumer.members
            for m in producer.members
            for user in self.users[m]
        )

    def _count_outputs(self, *groups: Group) -> int:
        return sum(1 for _ in self.outputs(sorted(m for group in groups for m in group.members)))

    def outputs(self, members: list[int]) -> Iterator[ir.Value]:
        """The values of the members that others use."""
        inside = {self.ops[m] for m in members}
        for member in members:
            for result in self.ops[member].results:
                if any(user not in inside for user in users(result)):
                    yield result

    def _detour(self, producer: Group, consumer: Group) -> bool:
        """Whether a path leads from the producer through another group to the consumer."""
        seen = {id(producer), id(consumer)}
        pending = [n for m in consumer.members for n in self.needs[m]]
        pending = [n for n in pending if self.group_of[n] not in (producer, consumer)]
        while pending:
            group = self.group_of[pending.pop()]
            if id(group) in seen:
                continue
            seen.add(id(group))
            needs = [n for m in group.members for n in self.needs[m]]
            if any(self.group_of[n] is producer for n in needs):
                return True
            pending += needs
        return False

    def _merge(self, producer: Group, consumer: Group, domain: Shape) -> None:
        if producer is consumer:
            return
        consumer.members = sorted(producer.members + consumer.members)
        consumer.domain = domain
        for member in producer.members:
            self.group_of[member] = consumer

    def schedule(self) -> list[Group]:
        """The groups, each after what it needs, otherwise in the order of their first ops."""
        waiting: dict[int, int] = {}
        followers: dict[int, list[Group]] = {}
        groups = list({id(group): group for group in self.group_of}.values())
        for group in groups:
            needed = {
                id(g): g for m in group.members for n in self.needs[m] if (g := self.group_of[n]) is not group
            }
            waiting[id(group)] = len(needed)
            for key in needed:
                followers.setdefault(key, []).append(group)
        ready = [(group.first, group) for group in groups if not waiting[id(group)]]
        heapq.heapify(ready)
        order = []
        while ready:
            _, group = heapq.heappop(ready)
            order.append(group)
            for follower in followers.get(id(group), ()):
                waiting[id(follower)] -= 1
                if not waiting[id(follower)]:
                    heapq.heappush(ready, (follower.first, follower))
        assert len(order) == len(groups), "fusion made a cycle"
        return order


def _reads(op: ir.Operation) -> Iterable[ir.Value]:
    return [*op.operands, *captured(op)] if len(op.regions) else op.operands


def _same_rows(a: Shape, b: Shape) -> Shape | None:
    """The domain of two with the same rows, where the columns agree or one has a single one."""
    if not a or not b or a[:-1] != b[:-1]:
        return a if a == b else None
    return _repeated(a, b) or _repeated(b, a)


def _repeated(small: Shape, large: Shape) -> Shape | None:
    """`large`, where `small` broadcasts to it."""
    try:
        return large if broadcast(small, large) == large else None
    except Invalid:
        return None


# ---- kernels


def _rebuild(graph: Graph) -> None:
    """Puts the block's ops into the order of the groups, and each group into a region."""
    terminator = graph.block.operations[len(graph.ops)].operation
    for group in graph.schedule():
        if len(group.members) == 1:
            graph.ops[group.members[0]].move_before(terminator)
        else:
            _build_kernel(
                [graph.ops[m] for m in group.members], list(graph.outputs(group.members)), terminator
            )


def _build_kernel(members: list[ir.Operation], outputs: list[ir.Value], point: ir.Operation) -> None:
    computing = [op for op in members if op.name in COMPUTE]
    with before(point, *computing):
        fused = npu.FusedOp(**fill_slots("outs", SLOTS, [value.type for value in outputs]))
        body = fused.body.blocks.append()
        for value, result in zip(outputs, fused.results, strict=True):
            value.replace_all_uses_except(result, members)
        for op in members:
            body.append(op)
        with ir.InsertionPoint(body):
            npu.YieldOp(**fill_slots("values", SLOTS, outputs))
