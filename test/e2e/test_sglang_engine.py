"""SGLang's engine on the device against transformers: long and short prompts, a shared prefix, chunks."""

import random
import re
from pathlib import Path

import pytest
import sglang_engine
import torch

PREFIX = random.Random(0).choices(range(2, 250), k=60)
PROMPTS = [[*PREFIX, 5, 6], [20, 21, 22], [7], [*PREFIX[:33], 9], PREFIX + [30] * 20]
NEW_TOKENS = 12
TOLERANCE = 1e-4  # of log-probabilities around -5 in float32, through two layers

CONFIGURATIONS = {
    "compiled, pages of 16": ({}, {"page_size": 16}),
    "compiled, pages of 1": ({}, {"page_size": 1}),
    "compiled, mixed batches": ({}, {"page_size": 16, "enable_mixed_chunk": True}),
    "compiled, no radix cache, no overlap": (
        {},
        {"page_size": 16, "disable_radix_cache": True, "disable_overlap_schedule": True},
    ),
    "eager": ({"OPENNPU_EAGER": "1"}, {"page_size": 16}),
}
"""Name → environment, arguments of the engine."""

LONGER = {"compiled, pages of 16", "compiled, no radix cache, no overlap"}
"""Run with make serving-tests, as an engine starts for long; the server of test_serve.py has the first."""


@pytest.fixture(scope="module")
def reference(tiny_llama):
    return load(tiny_llama)


def load(model: Path):
    from transformers import AutoModelForCausalLM

    options = {"dtype": torch.float32, "attn_implementation": "eager"}  # the other one caps no scores
    return AutoModelForCausalLM.from_pretrained(model, **options).eval()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.serving] if name in LONGER else []) for name in CONFIGURATIONS],
)
def test_tokens_and_logprobs_are_those_of_transformers(tiny_llama: Path, reference, tmp_path, name):
    """Twice: the second time prompts are found in the radix cache; then with the prompts' logprobs."""
    environment, options = CONFIGURATIONS[name]
    call = sglang_engine.greedy(PROMPTS, NEW_TOKENS)
    calls = [call, call, sglang_engine.greedy(PROMPTS, NEW_TOKENS, return_logprob=True, logprob_start_len=0)]
    answers, log = sglang_engine.generate(
        tmp_path, tiny_llama, calls, environment, chunked_prefill_size=32, **options
    )
    expected = [greedy(reference, prompt) for prompt in PROMPTS]
    for round_ in answers:
        assert [answer["output_ids"] for answer in round_] == expected
    for prompt, tokens, answer in zip(PROMPTS, expected, answers[2], strict=True):
        check_logprobs(reference, prompt, tokens, answer["meta_info"])
    cached = answers[1][0]["meta_info"]["cached_tokens"]
    assert (cached >= len(PREFIX) // 16 * 16) != ("disable_radix_cache" in options)
    assert ("the model is one program" in log) != bool(environment)
    assert "runs operator by operator:" not in log, "a batch that was not compiled"


@pytest.mark.parametrize(
    "name",
    [
        "qwen3-moe",
        *(pytest.param(name, marks=pytest.mark.serving) for name in ("gemma2", "gemma3", "mixtral")),
    ],
)
def test_other_models(tiny_model, tmp_path, name):
    """Windows, capped scores and logits, tied embeddings, constants of the model's forward; experts."""
    model = tiny_model(name)
    call = sglang_engine.greedy(PROMPTS, NEW_TOKENS, return_logprob=True, logprob_start_len=0)
    (answers,), log = sglang_engine.generate(tmp_path, model, [call], chunked_prefill_size=32)
    reference = load(model)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = greedy(reference, prompt)
        assert answer["output_ids"] == expected
        check_logprobs(reference, prompt, expected, answer["meta_info"])
    assert "the model is one program" in log and "runs operator by operator:" not in log


@pytest.mark.serving  # long
def test_a_batch_of_very_many_tokens(tiny_llama, reference, tmp_path):
    """All prompts but the first, which the engine does not wait with, in one launch."""
    choose = random.Random(3)
    prompts = [choose.choices(range(2, 250), k=200) for _ in range(60)]
    (answers,), log = sglang_engine.generate(
        tmp_path,
        tiny_llama,
        [sglang_engine.greedy(prompts, 2)],
        max_total_tokens=16384,
        max_running_requests=64,
        chunked_prefill_size=-1,
        mem_fraction_static=0.5,
        max_prefill_tokens=16384,
    )
    assert max(map(int, re.findall(r"Prefill batch.*?#new-token: (\d+)", log))) > 8192
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer["output_ids"] == greedy(reference, prompt, 2)


@pytest.mark.serving  # long
def test_a_batch_that_is_not_compiled(tiny_llama: Path, reference, tmp_path):
    """SGLang's weights, which waited on the host, come back for embeddings as input; then all goes on."""
    table = reference.get_input_embeddings().weight
    call = sglang_engine.greedy(PROMPTS, NEW_TOKENS, return_logprob=True)
    embedded = call | {"input_embeds": [table[prompt].tolist() for prompt in PROMPTS], "input_ids": None}
    options = {"dtype": "bfloat16", "disable_radix_cache": True}  # SGLang rounds embeddings to bfloat16
    answers, log = sglang_engine.generate(
        tmp_path, tiny_llama, [call, embedded, call], {"OPENNPU_STRICT": "0"}, **options
    )
    before, between, after = (
        [answer["meta_info"]["output_token_logprobs"] for answer in round_] for round_ in answers
    )
    assert before == after
    for compiled, eager in zip(before, between, strict=True):
        # Of the first token, which the eager prompt gave; bfloat16 has 3 digits of scores around 3.
        assert abs(compiled[0][0] - eager[0][0]) < 0.05
    assert log.count("runs operator by operator: embeddings as input") == 1
    assert log.count("of weights go to the chip once more") == 1


def greedy(model, prompt: list[int], count: int = NEW_TOKENS) -> list[int]:
    options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    return model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()


def check_logprobs(model, prompt: list[int], tokens: list[int], answer: dict) -> None:
    """Of every token of the prompt but the first, and of every new one."""
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + tokens])).logits[0].float().log_softmax(-1)
    given = [*answer["input_token_logprobs"][1:], *answer["output_token_logprobs"]]
    assert [entry[1] for entry in given] == (prompt + tokens)[1:]
    expected = logprobs[:-1].gather(1, torch.tensor(prompt + tokens)[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor([entry[0] for entry in given]), expected, rtol=0, atol=TOLERANCE)
