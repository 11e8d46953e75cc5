"""SGLang's ways of sampling on the device, strict: nothing but the sampler itself runs on the host."""

import json
import re
from pathlib import Path

import pytest
import sglang_engine
import torch
from test_sglang_engine import load

PROMPTS = [[20, 21, 22], [7], list(range(2, 60))]
NEW_TOKENS = 12
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
PENALTIES = {"frequency_penalty": 0.6, "presence_penalty": 0.4, "repetition_penalty": 1.3}
FEW = {3, 40, 200}

CALLS = {
    "greedy": {"temperature": 0},
    "top_k": {"temperature": 0.9, "top_k": 1},
    "top_p": {"temperature": 0.9, "top_p": 1e-4},
    "min_p": {"temperature": 0.9, "min_p": 1.0},
    "temperature": {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "n": 2},
    "penalties": {"temperature": 0, **PENALTIES},
    "bias": {"temperature": 1.0, "logit_bias": {str(token): 100.0 for token in FEW}},
    "stop tokens": {"temperature": 0, "min_new_tokens": 6, "logit_bias": {"1": 100.0}, "ignore_eos": False},
    "json": {
        "temperature": 0.8,
        "json_schema": json.dumps(SCHEMA),
        "ignore_eos": False,
        "max_new_tokens": 60,
    },
    "regex": {"temperature": 0.8, "regex": "[ab]{3,5}c", "ignore_eos": False},
}
LOGPROBS = {
    "return_logprob": True,
    "logprob_start_len": 0,
    "top_logprobs_num": 3,
    "token_ids_logprob": [4, 5],
}


@pytest.fixture(scope="module")
def answers(tiny_llama: Path, tmp_path_factory) -> dict[str, list[dict]]:
    """Of one engine, by the names of CALLS; "logprobs": greedy, with all that can be told of a token."""
    base = {"max_new_tokens": NEW_TOKENS, "ignore_eos": True}
    calls = [{"input_ids": PROMPTS, "sampling_params": base | options} for options in CALLS.values()]
    calls.append({"input_ids": PROMPTS, "sampling_params": base | CALLS["greedy"], **LOGPROBS})
    folder = tmp_path_factory.mktemp("sampling")
    given, _ = sglang_engine.generate(folder, tiny_llama, calls, skip_tokenizer_init=False)
    return dict(zip([*CALLS, "logprobs"], given, strict=True))


def tokens(answers: list[dict]) -> list[list[int]]:
    return [answer["output_ids"] for answer in answers]


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "logprobs"])
def test_only_the_most_likely_token_is_left(answers, name):
    assert tokens(answers[name]) == tokens(answers["greedy"])


def test_samples_differ(answers):
    drawn = tokens(answers["temperature"])
    assert len(drawn) == 2 * len(PROMPTS)
    assert len({tuple(x) for x in drawn}) == len(drawn)


def test_penalties(answers, tiny_llama):
    model = load(tiny_llama)
    assert tokens(answers["penalties"]) == [penalised(model, prompt) for prompt in PROMPTS]
    assert tokens(answers["penalties"]) != tokens(answers["greedy"])


@torch.no_grad()
def penalised(model, prompt: list[int]) -> list[int]:
    """Greedy by transformers' logits, changed for the tokens that SGLang counts: as it schedules ahead, the
    prompt's last and all new ones but the last. One more or less is a batch that the next one wrote into.
    """
    new: list[int] = []
    for _ in range(NEW_TOKENS):
        logits = model(torch.tensor([prompt + new])).logits[0, -1].float()
        counted = torch.tensor([prompt[-1], *new[:-1]] if new else [], dtype=torch.long)
        counts = torch.bincount(counted, minlength=len(logits))
        logits -= PENALTIES["frequency_penalty"] * counts + PENALTIES["presence_penalty"] * (counts > 0)
        factor = torch.where(counts > 0, PENALTIES["repetition_penalty"], 1.0)
        new.append(int(torch.where(logits < 0, logits * factor, logits / factor).argmax()))
    return new


def test_bias(answers):
    assert all(set(x) <= FEW for x in tokens(answers["bias"]))


def test_a_least_number_of_tokens(answers):
    """The bias asks for the end at once; the penalty forbids it before."""
    assert [x.index(1) for x in tokens(answers["stop tokens"])] == [6] * len(PROMPTS)


def test_grammars(answers):
    for answer in answers["regex"]:
        assert re.fullmatch("[ab]{3,5}c", answer["text"])
    complete = [a["text"] for a in answers["json"] if a["meta_info"]["finish_reason"]["type"] == "stop"]
    assert all(isinstance(json.loads(text)["a"], bool) for text in complete)
    assert all(answer["text"].lstrip()[:1] == "{" for answer in answers["json"])


def test_what_is_told_of_tokens(answers, tiny_llama):
    """The most likely tokens, and those that were named, of prompts and of new tokens."""
    model = load(tiny_llama)
    for prompt, answer in zip(PROMPTS, answers["logprobs"], strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer["output_ids"]])).logits[0]
        expected, info = logits.float().log_softmax(-1)[:-1], answer["meta_info"]
        for kind, rows in (("input", expected[: len(prompt) - 1]), ("output", expected[len(prompt) - 1 :])):
            skipped = 1 if kind == "input" else 0  # nothing is told of the first token
            best, named = (info[f"{kind}_{what}_logprobs"][skipped:] for what in ("top", "token_ids"))
            assert [[entry[1] for entry in row] for row in best] == rows.topk(3).indices.tolist()
            for given, wanted in ((best, rows.topk(3).values), (named, rows[:, [4, 5]])):
                got = torch.tensor([[entry[0] for entry in row] for row in given]).view(wanted.shape)
                torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
