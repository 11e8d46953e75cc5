"""SGLang's server arguments on this platform: defaults, and what is told to be unsupported at the start."""

import json
from dataclasses import dataclass
from pathlib import Path

from opennpu.sglang_integration import memory

PAGE_SIZE = 16
"""Tokens. Pages of 1 have a descriptor for each token; larger ones share fewer prefixes."""


@dataclass(frozen=True)
class Unsupported:
    """Values of an argument that are an error, all but those that are given."""

    field: str
    allowed: tuple
    remedy: str

    @property
    def option(self) -> str:
        return "--" + self.field.replace("_", "-")


ONE_CHIP = "a server drives one chip: start a server for each, and a router before them"
MERGED = "merge the adapter into the model's weights"
BF16 = "serve the checkpoint in bfloat16 or float32"

UNSUPPORTED = (
    *(Unsupported(name, (1,), ONE_CHIP) for name in ("tp_size", "pp_size", "dp_size", "ep_size", "nnodes")),
    Unsupported("dtype", ("auto", "bfloat16", "float32", "float"), "give --dtype bfloat16"),
    Unsupported("quantization", (None,), BF16),
    Unsupported("kv_cache_dtype", ("auto",), "pages hold the model's dtype: leave it out"),
    Unsupported("speculative_algorithm", (None,), "leave it out: every token is the model's own"),
    Unsupported("enable_lora", (None, False), MERGED),
    Unsupported("lora_paths", (None,), MERGED),
    Unsupported("attention_backend", (None, "opennpu"), "leave it out"),
    Unsupported("prefill_attention_backend", (None, "opennpu"), "leave it out"),
    Unsupported("decode_attention_backend", (None, "opennpu"), "leave it out"),
    Unsupported("disaggregation_mode", ("null",), "prefill and decode run on one chip: leave it out"),
    Unsupported("dllm_algorithm", (None,), "serve a model that generates from left to right"),
    Unsupported("enable_torch_compile", (False,), "leave it out: the model is compiled as one program"),
    Unsupported("cpu_offload_gb", (0,), "take a chip whose memory holds the model: OPENNPU_CHIP"),
    Unsupported("hicache_storage_backend", (None,), "the hierarchical cache is in host memory: leave it out"),
    Unsupported("enable_two_batch_overlap", (False,), ONE_CHIP),
)


def prepare(arguments) -> None:
    """Fills in SGLang's ServerArgs. Raises ValueError that names every option that is not supported, or for a
    chip that cannot hold the weights."""
    problems = [
        f"{rule.option} {value}: not supported on the device opennpu; {rule.remedy}"
        for rule in UNSUPPORTED
        if (value := getattr(arguments, rule.field)) not in rule.allowed
    ]
    if method := _quantization(Path(arguments.model_path)):
        problems.append(f"{arguments.model_path} is quantized ({method}): not supported; {BF16}")
    if problems:
        raise ValueError("\n".join(problems))
    arguments.sampling_backend = "pytorch"
    arguments.disable_hybrid_swa_memory = True  # windows are a mask: one pool for all layers
    arguments.hicache_io_backend, arguments.hicache_mem_layout = "direct", "page_first_direct"  # whole pages
    arguments.sleep_on_idle = True  # the scheduler's CPU is one that the chip may run on
    if arguments.dtype == "auto":
        arguments.dtype = "bfloat16"  # SGLang would take float16 for what is not in bfloat16
    if arguments.page_size is None:
        arguments.page_size = PAGE_SIZE
    if arguments.mem_fraction_static is None and memory.capacity() < memory.SMALL:
        arguments.mem_fraction_static = memory.STATIC
    if problem := memory.problem(Path(arguments.model_path), arguments.dtype):
        raise ValueError(problem)


def _quantization(model: Path) -> str | None:
    """The method of a quantized checkpoint, by its config.json."""
    try:
        config = json.loads((model / "config.json").read_text())
    except (OSError, ValueError):
        return None  # SGLang tells what is wrong with it
    return (config.get("quantization_config") or {}).get("quant_method")
