"""Models of known shapes with random weights: a directory as Hugging Face's, and the compiled program."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "shapes"
COMMON = {"tie_word_embeddings": True, "hidden_act": "silu", "dtype": "bfloat16"}
SHAPES = {
    "SmolLM2-135M": COMMON
    | {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
    | {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64}
    | {"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 1e5},
    "Qwen3-0.6B": COMMON
    | {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072}
    | {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    | {"max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1e6},
    "Llama-3.2-1B": COMMON
    | {"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192}
    | {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64}
    | {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5},
}
"""By name: the values of a config.json that are not the model type's defaults."""


def directory(model: str) -> Path:
    """Of one of SHAPES, made where it is missing; any other name is a directory already.

    Raises FileNotFoundError for what is neither.
    """
    if model not in SHAPES:
        if not (Path(model) / "config.json").exists():
            raise FileNotFoundError(f"{model} has no config.json and is none of {', '.join(SHAPES)}")
        return Path(model)
    folder = FOLDER / model
    if not (folder / "config.json").exists():
        _make(SHAPES[model], folder)
    return folder


def program(folder: Path) -> Path:
    """The directory's model compiled for the default chip; exported where it has not been."""
    made = FOLDER / folder.resolve().name
    made.mkdir(parents=True, exist_ok=True)
    archive, compiled = made / "model.pt", made / "model.npu"
    if not archive.exists():
        _run("npu_export", folder, "--output", archive)
    _run("npu_compile", archive, "--output", compiled)
    return compiled


def _make(shape: dict, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _run(tool: str, *arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", f"opennpu.tools.{tool}", *map(str, arguments)], check=True, stdout=sys.stderr
    )
