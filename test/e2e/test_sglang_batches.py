"""Requests together, in a pool too small for them, answer as one by one: token for token, bit for bit."""

import random
from pathlib import Path

import sglang_engine

NEW_TOKENS = 24
POOL = 320  # tokens; the requests need three times as many, so some wait, some are retracted


def prompts() -> list[list[int]]:
    """Of 3 to 90 tokens; every other one begins as the first does."""
    choose = random.Random(1)
    shared = choose.choices(range(2, 250), k=40)
    return [
        (shared if i % 2 else []) + choose.choices(range(2, 250), k=choose.randint(3, 50)) for i in range(16)
    ]


def test_a_batch_changes_nothing(tiny_llama: Path, tmp_path):
    alone = [sglang_engine.greedy([prompt], NEW_TOKENS, return_logprob=True) for prompt in prompts()]
    together = sglang_engine.greedy(prompts(), NEW_TOKENS, return_logprob=True)
    answers, log = sglang_engine.generate(
        tmp_path,
        tiny_llama,
        [together, *alone],
        max_total_tokens=POOL,
        chunked_prefill_size=64,
        schedule_conservativeness=0.1,
    )
    expected = [answer for (answer,) in answers[1:]]
    for got, single in zip(answers[0], expected, strict=True):
        assert got["output_ids"] == single["output_ids"]
        assert logprobs(got) == logprobs(single)
    assert "Retract" in log or "retract" in log, "the pool was large enough"
    assert "from the compile cache" in log or "compiled now" in log


def logprobs(answer: dict) -> list[float]:
    return [entry[0] for entry in answer["meta_info"]["output_token_logprobs"]]
