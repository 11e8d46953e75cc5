"""A Llama checkpoint in a GGUF file as a Hugging Face directory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, TokenType, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm

LAYER_WEIGHTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Of a layer: GGUF's names and Hugging Face's."""


def convert(gguf_file: Path, directory: Path) -> None:
    """Write config.json, model.safetensors (bf16) and the tokenizer into the directory.

    For Llama models with tied embeddings and the byte-level tokenizer of SmolLM.
    Raises ValueError for others.
    """
    checkpoint = Checkpoint(gguf_file)
    if (kind := checkpoint.field("general.architecture")) != "llama":
        raise ValueError(f"{gguf_file}: architecture {kind!r} instead of 'llama'")
    directory.mkdir(parents=True, exist_ok=True)
    config = checkpoint.config()
    tokens = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", tokens)
    _write_json(directory / "tokenizer_config.json", checkpoint.tokenizer_config())
    checkpoint.tokenizer().save(str(directory / "tokenizer.json"))
    weights = dict(checkpoint.weights())
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


class Checkpoint:
    """The contents of a GGUF file, in Hugging Face's terms."""

    def __init__(self, file: Path):
        reader = GGUFReader(file)
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}

    def field(self, name: str, default: Any = None) -> Any:
        return self._fields[name].contents() if name in self._fields else default

    def config(self) -> dict[str, Any]:
        heads = self.field("llama.attention.head_count")
        hidden = self.field("llama.embedding_length")
        # Stored in float32; the shortest decimal that rounds to it is what was meant.
        eps = float(str(np.float32(self.field("llama.attention.layer_norm_rms_epsilon"))))
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": hidden,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "num_hidden_layers": self.field("llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.field("llama.attention.head_count_kv", heads),
            "head_dim": self.field("llama.attention.key_length", hidden // heads),
            "vocab_size": len(self.field("tokenizer.ggml.tokens")),
            "max_position_embeddings": self.field("llama.context_length"),
            "rope_theta": self.field("llama.rope.freq_base", 10000.0),
            "rms_norm_eps": eps,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self.field("tokenizer.ggml.padding_token_id"),
            "dtype": "bfloat16",
        }

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Hugging Face's name and the bf16 tensor of every weight."""
        config = self.config()
        rotated = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        for layer in tqdm(range(config["num_hidden_layers"]), desc="convert", unit="layer", disable=None):
            for source, name in LAYER_WEIGHTS.items():
                weight = self._tensor(f"blk.{layer}.{source}.weight")
                if source in rotated:
                    weight = _halves_from_pairs(weight, rotated[source])
                yield f"model.layers.{layer}.{name}.weight", weight.bfloat16()
        yield "model.norm.weight", self._tensor("output_norm.weight").bfloat16()
        # A tied model may carry a second, finer quantisation of the embedding for the output.
        embedding = "output.weight" if "output.weight" in self._tensors else "token_embd.weight"
        yield "model.embed_tokens.weight", self._tensor(embedding).bfloat16()

    def tokenizer(self) -> Tokenizer:
        if (kind := self.field("tokenizer.ggml.pre")) != "smollm":
            raise ValueError(f"pre-tokenizer {kind!r} instead of 'smollm'")
        tokens, types = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.token_type")
        vocabulary = {t: i for i, t in enumerate(tokens) if types[i] != TokenType.UNUSED}
        merges = [tuple(merge.split(" ")) for merge in self.field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = [t for i, t in enumerate(tokens) if types[i] == TokenType.CONTROL]
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
        return tokenizer

    def tokenizer_config(self) -> dict[str, Any]:
        tokens = self.field("tokenizer.ggml.tokens")
        names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{key: tokens[self.field(f"tokenizer.ggml.{name}_token_id")] for key, name in names.items()},
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.field("llama.context_length"),
            "chat_template": self.field("tokenizer.chat_template"),
        }

    def _tensor(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(np.float32))


def _halves_from_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Undo GGUF's order of rotated rows: it pairs row 2i with 2i + 1, Hugging Face i with i + D/2."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
