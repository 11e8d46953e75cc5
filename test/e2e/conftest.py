"""The demo's model, compiled, next to transformers."""

import os
from pathlib import Path

import pytest
import torch
from lab import DEMO, Lab
from tiny_models import exported, tiny_llama, tiny_model, tiny_qwen3  # noqa: F401  fixtures

os.environ["HF_HUB_OFFLINE"] = "1"
TEXT = Path(__file__).parents[2] / "tools" / "baseline" / "declaration.txt"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The Hugging Face directory of SmolLM2, with model.pt and model.npu beside it."""
    for path in (DEMO / "smollm2", DEMO / "model.npu"):
        assert path.exists(), f"{path} is missing: run `make build/demo/model.npu` first"
    return DEMO / "smollm2"


@pytest.fixture(scope="session")
def text(smollm2: Path) -> list[int]:
    """Running text as tokens, at least 512 of them."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(smollm2)(TEXT.read_text()).input_ids
    assert len(tokens) >= 512
    return tokens


@pytest.fixture(scope="session")
def native(smollm2: Path) -> Lab:
    return Lab(engine="native")


@pytest.fixture(scope="session")
def transformers_logits(smollm2: Path, text: list[int]) -> dict[str, torch.Tensor]:
    """Teacher-forced logits [tokens, vocabulary] in float32, of transformers in float32 and bfloat16."""
    from transformers import AutoModelForCausalLM

    result = {}
    for name in ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=getattr(torch, name)).eval()
        with torch.inference_mode():
            result[name] = model(torch.tensor([text])).logits[0].float()
    return result
