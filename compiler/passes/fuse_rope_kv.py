"""npu-fuse-rope-kv: the way from a qkv projection to the KV pages becomes one op."""

from dataclasses import dataclass

from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import (
    attr,
    before,
    definition,
    erase_unused,
    feeds_only,
    only_user,
    ops_named,
    replace,
    slice_of,
    users,
)
from opennpu.dialects.npu import build
from opennpu.dialects.symbols import dims_of
from torch_mlir import ir


@register_pass("npu-fuse-rope-kv", "split of qkv + rope(q) + rope(k) + kv_write → rope_kv_write")
def run(module: ir.Module) -> None:
    """Rewrites every kv_write whose K is a rotated and whose V is a plain slice of one qkv tensor.

    The slices q, k, v must fill qkv in this order, with no other user; q and k must rotate
    alike, and nothing may need the rotated q before the write.
    """
    for write in ops_named(module, "npu.kv_write"):
        if match := _match(write):
            _fuse(match)


@dataclass(frozen=True)
class Match:
    """The ops around a kv_write, in order of use."""

    qkv: ir.Value
    slices: tuple[ir.Operation, ir.Operation, ir.Operation]  # q, k, v
    rope_q: ir.Operation
    rope_k: ir.Operation
    write: ir.Operation
    heads: int


def _match(write: ir.Operation) -> Match | None:
    k, v, _ = write.operands
    rope_k, slice_v = definition(k, "npu.rope"), definition(v, "npu.slice")
    if not rope_k or not slice_v or not feeds_only(k, write) or not feeds_only(v, write):
        return None
    slice_k = definition(rope_k.operands[0], "npu.slice")
    if not slice_k or not feeds_only(slice_k.results[0], rope_k):
        return None
    qkv = slice_k.operands[0]
    for slice_q in users(qkv):
        rope_q = slice_q.name == "npu.slice" and only_user(slice_q.results[0])
        if rope_q and rope_q.name == "npu.rope" and rope_q != rope_k:
            match = Match(qkv, (slice_q, slice_k, slice_v), rope_q, rope_k, write, _heads(rope_q))
            return match if _fits(match) else None
    return None


def _heads(rope: ir.Operation) -> int:
    return dims_of(rope.results[0].type)[1] // attr(rope, "head_dim")


def _fits(match: Match) -> bool:
    q, k, write = match.rope_q, match.rope_k, match.write
    size, kv_heads = attr(write, "head_dim"), attr(write, "kv_heads")
    sizes = (match.heads * size, kv_heads * size, kv_heads * attr(write, "v_head_dim"))
    offsets = (0, sizes[0], sizes[0] + sizes[1])
    tokens = dims_of(match.qkv.type)[:1]
    return (
        len(users(match.qkv)) == 3
        and dims_of(match.qkv.type) == (*tokens, sum(sizes))
        and all(
            slice_of(s, match.qkv, 1, at, n) for s, at, n in zip(match.slices, offsets, sizes, strict=True)
        )
        and all(q.operands[i] == k.operands[i] for i in (1, 2))
        and all(q.attributes[name] == k.attributes[name] for name in ("head_dim", "neox"))
        and attr(q, "head_dim") == size
        and match.heads % kv_heads == 0
        and all(user.block == write.block and write.is_before_in_block(user) for user in users(q.results[0]))
    )


def _fuse(match: Match) -> None:
    write, rope = match.write, match.rope_q
    with before(write, rope, match.rope_k, write):
        q = build.rope_kv_write(
            match.qkv,
            *rope.operands[1:],
            write.operands[2],
            heads=match.heads,
            neox=attr(rope, "neox"),
            **{name: attr(write, name) for name in ("layer", "kv_heads", "head_dim", "v_head_dim")},
        )
    write.erase()
    replace(rope, [q])
    erase_unused(match.rope_k, *match.slices)
