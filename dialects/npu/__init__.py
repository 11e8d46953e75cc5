"""Level 1, `npu`: SSA ops on whole tensors (docs/npu.md).

    from opennpu.dialects import npu

    y = npu.matmul(x, w, transpose_w=True, epilogue=["bias"], extra=[b])   # an ir.Value
    op = npu.MatmulOp(...)                                                 # the op class
    op.epilogue, npu.dims(op.y), npu.dtype(op.y)

Lower-case names build ops with inferred result types (`build.py`), `…Op` are the op
classes (`ops.py`).
"""

from opennpu.dialects.npu.build import *  # noqa: F403
from opennpu.dialects.npu.dialect import *  # noqa: F403
from opennpu.dialects.npu.ops import *  # noqa: F403
from opennpu.dialects.npu.products import ACTIVATIONS as ACTIVATIONS
from opennpu.dialects.npu.products import GATES as GATES
from opennpu.dialects.npu.products import OPERANDS as OPERANDS
