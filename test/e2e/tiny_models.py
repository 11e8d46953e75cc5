"""Small random models as Hugging Face directories, and their archives."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

TINY = {
    "vocab_size": 261,  # not a multiple of SGLang's padding
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MODELS = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama-long": ("llama", {"max_position_embeddings": 2048}),
    "llama-wide": (
        "llama",
        {"head_dim": 128, "num_key_value_heads": 1, "attention_bias": True, "vocab_size": 307},
    ),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),  # biases of queries, keys and values
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "granite": (  # computes in place
        "granite",
        {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "gemma2": (  # every other layer with a window, capped scores and logits, no lm_head
        "gemma2",
        {"sliding_window": 11, "query_pre_attn_scalar": 16, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "gemma3": (  # a rope of its own for windows, norms of queries and keys
        "gemma3_text",
        {
            "sliding_window": 11,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 16,
            "hidden_activation": "gelu_pytorch_tanh",
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3-moe": (  # weights of the chosen experts as they are, a router over many small ones
        "qwen3_moe",
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "norm_topk_prob": False},
    ),
}
"""Name → transformers' type of model, and what differs from TINY."""
WEIGHT_DEVIATION = 0.2  # large enough that the tokens depend on the context


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """An npu-* command in its own process, as a user runs it."""
    code = f"import sys; from opennpu.tools.{name} import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """tiny_model(name of MODELS) is its directory, made once."""

    @cache
    def directory(name: str) -> Path:
        model_type, options = MODELS[name]
        config = AutoConfig.for_model(model_type, **TINY | options)
        return _save(AutoModelForCausalLM.from_config(config), tmp_path_factory.mktemp(name))

    return directory


@pytest.fixture(scope="session")
def tiny_llama(tiny_model) -> Path:
    """A Llama with its own output matrix."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def tiny_qwen3(tiny_model) -> Path:
    """A Qwen3: norms of queries and keys, tied embeddings."""
    return tiny_model("qwen3")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(model_dir) is its archive, in float32; made once a directory."""

    @cache
    def export(model_dir: Path) -> Path:
        path = tmp_path_factory.mktemp("archive") / "model.pt"
        result = run_tool("npu_export", model_dir, "-o", path, "--dtype", "fp32")
        assert result.returncode == 0, result.stderr
        return path

    return export


def _save(model: PreTrainedModel, directory: Path) -> Path:
    """The model with random weights, norms and biases, and a tokenizer of bytes."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        initial = 0 if parameter.dim() > 1 else parameter.data  # norms stay around their 1, biases 0
        noise = torch.empty_like(parameter).normal_(std=WEIGHT_DEVIATION, generator=generator)
        parameter.data = initial + noise
    model.save_pretrained(directory)
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate(["<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    return directory
