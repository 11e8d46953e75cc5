"""Small random models as Hugging Face directories, and their archives."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

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
WEIGHT_DEVIATION = 0.2  # large enough that the tokens depend on the context


def run_tool(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """An npu-* command in its own process, as a user runs it."""
    command = [sys.executable, "-m", f"opennpu.tools.{name}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A Llama with its own output matrix."""
    return _save(tmp_path_factory, LlamaForCausalLM(LlamaConfig(**TINY, tie_word_embeddings=False)))


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory) -> Path:
    """A Qwen3: norms of queries and keys, tied embeddings."""
    return _save(tmp_path_factory, Qwen3ForCausalLM(Qwen3Config(**TINY, tie_word_embeddings=True)))


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(model_dir) is its archive, in float32; made once a directory."""
    made: dict[Path, Path] = {}

    def export(model_dir: Path) -> Path:
        if model_dir not in made:
            path = tmp_path_factory.mktemp("archive") / "model.pt"
            result = run_tool("npu_export", model_dir, "-o", path, "--dtype", "fp32")
            assert result.returncode == 0, result.stderr
            made[model_dir] = path
        return made[model_dir]

    return export


def _save(tmp_path_factory, model) -> Path:
    """The model with random weights, and a tokenizer of bytes."""
    directory = tmp_path_factory.mktemp(type(model).__name__)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=WEIGHT_DEVIATION, generator=generator)
    model.save_pretrained(directory)
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate(["<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(directory)
    return directory
