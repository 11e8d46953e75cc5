"""Do the weights of a Hugging Face directory have the shapes that its config.json implies?

SGLang's loaders cut or pad a weight that does not fit, without a word.
"""

from pathlib import Path

import torch
from opennpu.dialects.diagnostics import CompileError, Problem
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM


def check_shapes(model_dir: Path) -> None:
    """Raises CompileError that names every weight of a wrong shape.

    The shapes are those of transformers' model class; a model it does not have is not checked.
    """
    expected = _expected_shapes(model_dir)
    problems = []
    for file in sorted(model_dir.glob("*.safetensors")):
        for name, shape in shapes(file).items():
            if expected.get(name, shape) != shape:
                what = f"weight {name} has the shape {shape} instead of {expected[name]}"
                problems.append(Problem(what, where=str(file)))
    if problems:
        remedy = "config.json and the weights seem to belong to different models."
        last = problems.pop()
        raise CompileError(*problems, Problem(last.what, last.where, remedy))


def _expected_shapes(model_dir: Path) -> dict[str, list[int]]:
    try:
        config = AutoConfig.from_pretrained(model_dir, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError):
        return {}
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def shapes(file: Path) -> dict[str, list[int]]:
    """From the header of a safetensors file."""
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        remedy = "Copy or download the file again."
        raise CompileError(Problem(f"{file} is not a safetensors file: {error}", remedy=remedy)) from None
