"""All ops of the `npu` dialect."""

from opennpu.dialects.npu.attention import (
    DenseAttentionOp,
    KvWriteOp,
    PagedAttentionOp,
    RopeKvWriteOp,
    RopeOp,
    VarlenAttentionOp,
)
from opennpu.dialects.npu.debug import CaptureOp
from opennpu.dialects.npu.dialect import NPU
from opennpu.dialects.npu.elementwise import (
    AddRmsNormOp,
    BinaryOp,
    CastOp,
    ConstantOp,
    CumsumOp,
    ExtentOp,
    GeluAndMulOp,
    IotaOp,
    LayerNormOp,
    ReduceOp,
    RmsNormOp,
    SelectOp,
    SiluAndMulOp,
    SoftmaxOp,
    UnaryOp,
)
from opennpu.dialects.npu.experts import (
    CombineRowsOp,
    GroupedMatmulOp,
    ScatterRowsOp,
    SortExpertsOp,
    TopkSoftmaxOp,
)
from opennpu.dialects.npu.movement import (
    BroadcastOp,
    ConcatOp,
    GatherOp,
    PutRowsOp,
    ReshapeOp,
    SliceOp,
    TakeOp,
    TransposeOp,
)
from opennpu.dialects.npu.products import MatmulOp
from opennpu.dialects.npu.structure import FusedOp, RepeatOp, YieldOp, captured
from torch_mlir import ir

__all__ = [
    "NPU",
    "AddRmsNormOp",
    "BinaryOp",
    "BroadcastOp",
    "CaptureOp",
    "CastOp",
    "CombineRowsOp",
    "ConcatOp",
    "ConstantOp",
    "CumsumOp",
    "DenseAttentionOp",
    "ExtentOp",
    "FusedOp",
    "GatherOp",
    "GeluAndMulOp",
    "GroupedMatmulOp",
    "IotaOp",
    "KvWriteOp",
    "LayerNormOp",
    "MatmulOp",
    "PagedAttentionOp",
    "PutRowsOp",
    "ReduceOp",
    "RepeatOp",
    "ReshapeOp",
    "RmsNormOp",
    "RopeKvWriteOp",
    "RopeOp",
    "ScatterRowsOp",
    "SelectOp",
    "SiluAndMulOp",
    "SliceOp",
    "SoftmaxOp",
    "SortExpertsOp",
    "TakeOp",
    "TopkSoftmaxOp",
    "TransposeOp",
    "UnaryOp",
    "VarlenAttentionOp",
    "YieldOp",
    "captured",
    "load",
]


def load(context: ir.Context | None = None) -> None:
    """Loads the dialect into `context` (the current one), unless it is there already."""
    with context or ir.Context.current as current:
        if not current.is_dialect_loaded(NPU.DIALECT_NAMESPACE):
            NPU.load()
