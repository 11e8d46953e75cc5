"""Requests together, in a pool too small for them, answer as one by one; and as transformers does."""

from pathlib import Path

import pytest
import serving_load
import torch
from server_process import Answer, Request

pytestmark = pytest.mark.serving  # nine servers, minutes each


@pytest.fixture(scope="module")
def load(text) -> list[Request]:
    return serving_load.requests(text)


@pytest.fixture(scope="module")
def alone(smollm2, load, tmp_path_factory) -> list[Answer]:
    folder = tmp_path_factory.mktemp("alone")
    with serving_load.server(smollm2, folder, serving_load.ALONE) as server:
        return server.ask(load, concurrency=1)


def test_alone_as_transformers(smollm2: Path, load, alone):
    """The tokens and log-probabilities next to transformers in float32, given the tokens before.

    Both bfloat16 round in other places: the bounds are those of test_accuracy.py, the same for the
    tokens that were generated as for those of a text.
    """
    from transformers import AutoModelForCausalLM

    exact, rounded = (
        AutoModelForCausalLM.from_pretrained(smollm2, dtype=dtype).eval()
        for dtype in (torch.float32, torch.bfloat16)
    )
    given, expected, theirs, best, their_best, tokens = ([] for _ in range(6))
    for request, answer in zip(load, alone, strict=True):
        ids = torch.tensor([[*request.prompt, *answer.tokens]])
        chosen = ids[0, len(request.prompt) :, None]
        with torch.inference_mode():
            of_both = [
                reference(ids, logits_to_keep=len(chosen) + 1).logits[0, :-1].float().log_softmax(-1)
                for reference in (exact, rounded)
            ]
        given.append(torch.tensor(answer.logprobs))
        expected.append(of_both[0].gather(1, chosen)[:, 0])
        theirs.append(of_both[1].gather(1, chosen)[:, 0])
        best.append(of_both[0].argmax(-1))
        their_best.append(of_both[1].argmax(-1))
        tokens.append(chosen[:, 0])
    given, expected, theirs, best, their_best, tokens = map(
        torch.cat, (given, expected, theirs, best, their_best, tokens)
    )
    errors = [float((x - expected).square().mean().sqrt()) for x in (given, theirs)]
    agreement = [float((x == best).float().mean()) for x in (tokens, their_best)]
    print(
        f"{len(tokens)} tokens: log-probabilities off by {errors[0]:.4f} (transformers in bfloat16 "
        f"{errors[1]:.4f}), {agreement[0]:.2%} ({agreement[1]:.2%}) are float32's"
    )
    assert errors[0] <= 1.5 * errors[1]
    assert agreement[0] >= agreement[1] - 0.01


@pytest.mark.parametrize("settings", serving_load.MATRIX, ids=str)
def test_a_batch_changes_nothing(smollm2, load, alone, settings, tmp_path):
    with serving_load.server(smollm2, tmp_path, settings) as server:
        print(settings, serving_load.check(server, settings, load, alone), sep=": ")
