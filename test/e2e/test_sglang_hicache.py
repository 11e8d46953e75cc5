"""SGLang's hierarchical cache: prefixes that were evicted from the chip come back from host memory."""

import random

import pytest
import sglang_engine

CHOOSE = random.Random(0)
PROMPTS = [CHOOSE.choices(range(2, 250), k=100) for _ in range(6)]
POOL = 256  # tokens: two of the prompts


@pytest.mark.serving  # engines of its own
@pytest.mark.parametrize(
    "options",
    [
        {"page_size": 16},
        {"page_size": 1, "hicache_write_policy": "write_back", "disable_overlap_schedule": True},
    ],
    ids=["pages of 16", "pages of 1, written at eviction"],
)
def test_evicted_prefixes_come_back(tiny_llama, tmp_path, options):
    one = [sglang_engine.greedy([prompt], 8, return_logprob=True) for prompt in PROMPTS]
    together = sglang_engine.greedy(PROMPTS, 8, return_logprob=True)
    answers, _ = sglang_engine.generate(
        tmp_path,
        tiny_llama,
        [*one, *one, together],
        max_total_tokens=POOL,
        enable_hierarchical_cache=True,
        hicache_ratio=4,
        chunked_prefill_size=64,
        **options,
    )
    first, second, third = answers[: len(one)], answers[len(one) : -1], answers[-1]
    for (new,), (known,), beside in zip(first, second, third, strict=True):
        assert new["meta_info"]["cached_tokens"] == 0
        assert known["meta_info"]["cached_tokens"] >= 96  # whole pages of the prompt
        assert known["meta_info"]["cached_tokens_details"]["host"] >= 96
        for again in (known, beside):
            assert again["output_ids"] == new["output_ids"]
            assert logprobs(again) == logprobs(new)


@pytest.mark.serving  # an engine of its own
def test_retracted_requests_come_back(tiny_llama, tmp_path):
    """Answers that together do not fit: requests are retracted, and go on with pages from the host."""
    tokens = 150
    alone = [sglang_engine.greedy([prompt], tokens, return_logprob=True) for prompt in PROMPTS]
    together = sglang_engine.greedy(PROMPTS, tokens, return_logprob=True)
    answers, _ = sglang_engine.generate(
        tmp_path,
        tiny_llama,
        [*alone, together, together],
        environment={"SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION": "8"},  # admits what outgrows the pool later
        schedule_conservativeness=0.01,
        max_total_tokens=2 * POOL,
        enable_hierarchical_cache=True,
        hicache_ratio=4,
        chunked_prefill_size=64,
    )
    assert sum(answer["meta_info"]["num_retractions"] for batch in answers[-2:] for answer in batch) > 0
    for one, *others in zip((answer[0] for answer in answers[: len(alone)]), *answers[-2:], strict=True):
        assert len(one["output_ids"]) == tokens
        for other in others:
            assert other["output_ids"] == one["output_ids"]
            assert logprobs(other) == logprobs(one)
    assert max(answer["meta_info"]["cached_tokens_details"]["host"] for answer in answers[-1]) > 0


def logprobs(answer: dict) -> list[float]:
    return [entry[0] for entry in answer["meta_info"]["output_token_logprobs"]]
