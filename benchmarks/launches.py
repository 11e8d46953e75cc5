"""The launches that the native engine is measured on, and the least time that each can take."""

from collections.abc import Mapping
from dataclasses import dataclass

from opennpu.runtime.extents import Extent
from opennpu.runtime.signature import ITEMSIZE, Signature

PAGE_SIZE = 16  # tokens


@dataclass(frozen=True)
class Part:
    """`tokens` new tokens of a sequence that has `cached` of them."""

    cached: int
    tokens: int

    @property
    def length(self) -> int:
        return self.cached + self.tokens

    @property
    def pages(self) -> int:
        return -(-self.length // PAGE_SIZE)

    @property
    def pairs(self) -> int:
        """Of a token and a key that it sees."""
        return self.tokens * self.cached + self.tokens * (self.tokens + 1) // 2


@dataclass(frozen=True)
class Launch:
    name: str
    parts: tuple[Part, ...]
    target: float  # of the limit

    @property
    def tokens(self) -> int:
        return sum(part.tokens for part in self.parts)

    @property
    def context(self) -> int:
        """Tokens of the longest sequence."""
        return max(part.length for part in self.parts)

    def limit(self, signature: Signature, rates: Mapping[str, float]) -> float:
        """The least seconds: bytes over bandwidth or operations over peak, the greater, summed over kernels.

        Bytes and operations are the compiler's counts (`--report`): weights and activations once a kernel.
        Attention's keys and values, read once a sequence, and its two products are added here; windows that
        hide keys are not looked at.
        """
        symbols = {"T": self.tokens, "B": len(self.parts), "R": len(self.parts)}
        symbols["P"] = max(part.pages for part in self.parts)
        seconds, attention = 0.0, [*self._attention(signature)]
        for kernel in signature.report:
            costs = [Extent.parse(kernel[cost]).evaluate(symbols) for cost in ("bytes", "flops")]
            if kernel["kernel"] == "paged_attention":
                attention = [a + b for a, b in zip(attention, costs, strict=True)]
            else:
                seconds += _bound(*costs, rates)
        return seconds + _bound(*attention, rates)

    def _attention(self, signature: Signature) -> tuple[int, int]:
        """Bytes of keys and values, operations of the products."""
        kv, heads = signature.kv, signature.model["config"]["num_attention_heads"]
        width = kv.layers * (kv.head_dim + kv.v_head_dim)
        read = width * kv.kv_heads * ITEMSIZE[kv.dtype] * sum(part.length for part in self.parts)
        return read, 2 * width * heads * sum(part.pairs for part in self.parts)


def _bound(moved: int, operations: int, rates: Mapping[str, float]) -> float:
    """`rates` as the probe gives them; of the peaks that in bfloat16 where the CPU has one."""
    peak = rates["bf16_gflop_per_s"] or rates["f32_gflop_per_s"]
    return max(moved / rates["read_gb_per_s"], operations / peak) / 1e9


def _decode(batch: int, context: int, target: float) -> Launch:
    name = f"decode, batch {batch}" + (f", context {context}" if context != CONTEXT else "")
    return Launch(name, (Part(context - 1, 1),) * batch, target)


CONTEXT = 512
LAUNCHES = (
    _decode(1, CONTEXT, 0.9),
    _decode(8, CONTEXT, 0.85),
    _decode(16, CONTEXT, 0.85),
    _decode(1, 8192, 0.85),
    Launch("prefill 512", (Part(0, 512),), 0.85),
    Launch("prefill 4096", (Part(0, 4096),), 0.8),
    Launch("8 decoding + chunk of 256", (Part(CONTEXT - 1, 1),) * 8 + (Part(0, 256),), 0.8),
)
POOL_PAGES = max(sum(part.pages for part in launch.parts) for launch in LAUNCHES)
