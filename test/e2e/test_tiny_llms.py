"""Small random models of several families: SGLang's classes on the virtual chip, next to transformers.

All in float32, where the two differ by the order of their sums only, and where the two engines can be
held to a tight bound.
"""

from types import SimpleNamespace

import pytest
import torch
from opennpu.runtime.device import Device
from opennpu.runtime.language_model import CachedSequence, Chunk, LanguageModel
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program
from opennpu.tools import npu_compile
from small_models import relative_error
from tiny_models import MODELS
from torch import Tensor
from transformers import AutoModelForCausalLM

TOKENS = torch.randint(2, 261, (40,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module", params=MODELS)
def case(request, tiny_model, exported, tmp_path_factory):
    """A model: its compiled program's path, and transformers' class with the same weights."""
    directory = tiny_model(request.param)
    path = tmp_path_factory.mktemp("compiled") / "model.npu"
    assert npu_compile.main([str(exported(directory)), "-o", str(path)]) == 0
    reference = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    )
    return SimpleNamespace(path=path, reference=reference, whole=alone(language_model(path), TOKENS))


def language_model(path, page_size: int = 16, **device) -> LanguageModel:
    program = Program.load(Device(**device), path)
    return LanguageModel(program, PagePool(program.device, program.signature.kv, page_size, 128 // page_size))


def alone(model: LanguageModel, tokens: list[int]) -> Tensor:
    """The logits of every token, from one launch."""
    sequence = CachedSequence()
    (logits,) = model.forward([Chunk(sequence, tokens, logits=len(tokens))])
    model.release(sequence)
    return logits


def in_pieces(model: LanguageModel, tokens: list[int]) -> Tensor:
    """The same in pieces, the first next to another sequence, the last two tokens decoded next to it."""
    sequence, other, logits, start = CachedSequence(), CachedSequence(), [], 0
    for index, size in enumerate((3, 16, len(tokens) - 21, 1, 1)):
        chunks = [Chunk(sequence, tokens[start : start + size], logits=size)]
        if index != 1:
            chunks.insert(index % 2, Chunk(other, tokens[: 7 if index == 0 else 1]))
        logits.append(model.forward(chunks)[chunks[0].sequence is other])
        start += size
    model.release(sequence)
    model.release(other)
    return torch.cat(logits)


@torch.no_grad()
def test_logits_match_transformers(case):
    """Sums of some hundred terms in other orders, through two layers: some ten ulp of float32."""
    assert relative_error(case.whole, case.reference(torch.tensor([TOKENS])).logits[0]) <= 1e-5


@torch.no_grad()
def test_greedy_tokens_match_transformers(case):
    prompt, count = TOKENS[:9], 16
    expected = case.reference.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0
    )[0, len(prompt) :].tolist()
    found = list(language_model(case.path).generate(prompt, count))
    assert found == [token for token in expected if token != 1]  # up to the end of the text


@pytest.mark.parametrize("page_size", [1, 16, 32])
def test_chunks_batches_and_pages_change_no_bit(case, page_size):
    assert torch.equal(in_pieces(language_model(case.path, page_size), TOKENS), case.whole)


def test_engines_agree_and_order_their_accesses(case):
    """The engines differ in the last place of exp and the like; under the race checker."""
    tokens = TOKENS[:24]
    reference = in_pieces(language_model(case.path, engine="reference", race_check=True), tokens)
    assert relative_error(case.whole[: len(tokens)], reference) <= 5e-6
