"""The `opennpu::` operators: what stays whole between a model and the compiler.

Each one has a schema, a shape function for tracing, and a plain PyTorch
implementation, so that an exported program can also be run on the host (`library.py`).

Importing this package registers them. It is needed before an archive that uses
them can be loaded; SGLang is not.
"""

from opennpu.compiler.frontend.ops.activations import gelu_and_mul, silu_and_mul
from opennpu.compiler.frontend.ops.attention import flash_attention, paged_attention
from opennpu.compiler.frontend.ops.embedding import argmax, embedding
from opennpu.compiler.frontend.ops.kv_store import KvStore, kv_store
from opennpu.compiler.frontend.ops.matmul import matmul
from opennpu.compiler.frontend.ops.moe import fused_moe, grouped_matmul, topk_softmax
from opennpu.compiler.frontend.ops.norms import add_rms_norm, layer_norm, rms_norm
from opennpu.compiler.frontend.ops.radix_attention import radix_attention_decode, radix_attention_extend
from opennpu.compiler.frontend.ops.rotary import rotary_embedding

__all__ = [
    "KvStore",
    "add_rms_norm",
    "argmax",
    "embedding",
    "flash_attention",
    "fused_moe",
    "gelu_and_mul",
    "grouped_matmul",
    "kv_store",
    "layer_norm",
    "matmul",
    "paged_attention",
    "radix_attention_decode",
    "radix_attention_extend",
    "rms_norm",
    "rotary_embedding",
    "silu_and_mul",
    "topk_softmax",
]
