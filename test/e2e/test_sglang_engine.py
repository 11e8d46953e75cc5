"""SGLang's engine on the device against transformers: prompts of one to many pages, a shared prefix, chunks."""

import random
from pathlib import Path

import pytest
import sglang_engine
import torch

PREFIX = random.Random(0).choices(range(2, 250), k=60)
PROMPTS = [PREFIX + [5, 6], [20, 21, 22], [7], PREFIX[:33] + [9], PREFIX + [30] * 20]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def expected(tiny_llama) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
    return [model.generate(torch.tensor([p]), **options)[0, len(p) :].tolist() for p in PROMPTS]


@pytest.mark.parametrize("page_size", [1, 16])
def test_greedy_is_that_of_transformers(tiny_llama: Path, expected, tmp_path, page_size):
    """Twice: the second time the prompts are found in the radix cache."""
    call = sglang_engine.greedy(PROMPTS, NEW_TOKENS)
    first, second = sglang_engine.generate(
        tmp_path, tiny_llama, [call, call], page_size=page_size, chunked_prefill_size=32
    )
    assert [answer["output_ids"] for answer in first] == expected
    assert [answer["output_ids"] for answer in second] == expected
    assert second[0]["meta_info"]["cached_tokens"] >= len(PREFIX) // page_size * page_size
