"""What can be told about a Hugging Face directory without loading anything."""

import json
from pathlib import Path

from opennpu.dialects.diagnostics import CompileError, Problem


def read_config(model_dir: Path, needs_weights: bool = True, way_out: str = "") -> dict:
    """Its config.json. Raises CompileError; `way_out` is said where the weights are missing."""
    remedy = "Give the directory of a Hugging Face model, with config.json and *.safetensors."
    if not (model_dir / "config.json").is_file():
        what = "has no config.json" if model_dir.is_dir() else "is not a directory"
        raise CompileError(Problem(f"{model_dir} {what}", remedy=remedy))
    if needs_weights and not any(model_dir.glob("*.safetensors")):
        raise CompileError(Problem(f"{model_dir} has no weights (*.safetensors)", remedy=remedy + way_out))
    try:
        config = json.loads((model_dir / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CompileError(Problem(f"{model_dir}/config.json is not JSON: {error}", remedy=remedy)) from None
    if not isinstance(config, dict):
        raise CompileError(Problem(f"{model_dir}/config.json is not a JSON object", remedy=remedy))
    return config
