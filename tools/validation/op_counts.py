"""How long the sums in an op are, for its bound: what it truly adds up, from its operands and attributes."""

from collections.abc import Callable, Mapping, Sequence

from opennpu.compiler.rewriting import attr
from opennpu.dialects.symbols import Sym, dims_of
from torch import Tensor
from torch_mlir import ir

Counter = Callable[[ir.Operation, Sequence[Tensor]], dict[str, int]]

ROW_OPS = frozenset({"npu.reduce", "npu.softmax", "npu.rms_norm", "npu.layer_norm", "npu.cumsum"})
"""Those in a fused region that add up the last dimension of their operand."""


def counts(op: ir.Operation, values: Sequence[Tensor], sizes: Mapping[str, int]) -> dict[str, int]:
    """The numbers that op_bounds.py speaks of, for an op on these operands; none for an op without sums.

    `K` terms of a sum; of attention `D` elements of a head and `keys` of the longest row of scores; of a
    fused op also its `ops`, and the `rounded` values in bfloat16 that it does not return.
    """
    if op.name == "npu.fused":
        return _of_region(op, sizes)
    return COUNTERS[op.name](op, values) if op.name in COUNTERS else {}


def _last(op: ir.Operation, values: Sequence[Tensor]) -> dict[str, int]:
    return {"K": values[0].shape[-1]}


def _longest(starts: Tensor) -> int:
    return int(starts.diff().max())


def _paged(op: ir.Operation, values: Sequence[Tensor]) -> dict[str, int]:
    keys = int(values[2].max())
    return {"D": attr(op, "head_dim"), "keys": min(keys, attr(op, "window") or keys)}


COUNTERS: dict[str, Counter] = {
    **dict.fromkeys(
        [
            f"npu.{name}"
            for name in ("softmax", "topk_softmax", "cumsum", "rms_norm", "add_rms_norm", "layer_norm")
        ],
        _last,
    ),
    "npu.matmul": _last,
    "npu.grouped_matmul": _last,
    "npu.reduce": lambda op, values: {"K": values[0].shape[attr(op, "dim")]},
    "npu.combine_rows": lambda op, values: {"K": values[1].shape[0]},
    "npu.paged_attention": _paged,
    "npu.varlen_attention": lambda op, values: {"D": values[0].shape[-1], "keys": _longest(values[4])},
    "npu.dense_attention": lambda op, values: {"D": values[0].shape[-1], "keys": values[1].shape[-2]},
}


def _of_region(op: ir.Operation, sizes: Mapping[str, int]) -> dict[str, int]:
    *inner, end = (each.operation for each in op.regions[0].blocks[0].operations)
    lengths = [
        Sym.of(dims_of(x.operands[0].type)[-1]).evaluate(dict(sizes)) for x in inner if x.name in ROW_OPS
    ]
    returned = set(end.operands)
    on_the_way = [x for x in inner if "bf16" in str(x.results[0].type) and x.results[0] not in returned]
    return {"K": max(lengths, default=1), "ops": len(inner), "rounded": len(on_the_way)}
