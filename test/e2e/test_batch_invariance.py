"""A token's logits are the same bit for bit however its batch, chunks, pages and threads fall."""

import pytest
import torch
from lab import Lab
from opennpu.runtime.language_model import CachedSequence, Chunk
from torch import Tensor


@pytest.fixture(scope="module")
def whole(native: Lab, text: list[int]) -> Tensor:
    """The logits of every token of the text, from one launch."""
    return alone(native, text)


def alone(lab: Lab, tokens: list[int]) -> Tensor:
    sequence = lab.sequence()
    (logits,) = lab.model.forward([Chunk(sequence, tokens, logits=len(tokens))])
    lab.model.release(sequence)
    return logits


@pytest.mark.parametrize("sizes", [(1, 7, 33, 128, 2), (200, 3), (129,)], ids=str)
def test_chunked_prefill(native: Lab, text: list[int], whole: Tensor, sizes: tuple[int, ...]):
    sequence, start, pieces = native.sequence(), 0, []
    while start < len(text):
        size = sizes[len(pieces) % len(sizes)]
        tokens = text[start : start + size]
        pieces += native.model.forward([Chunk(sequence, tokens, logits=len(tokens))])
        start += size
    native.model.release(sequence)
    assert torch.equal(torch.cat(pieces), whole)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_decode_batches(native: Lab, text: list[int], count: int):
    """`count` sequences of different lengths, four steps of decoding together."""
    prompts = [text[11 * i : 11 * i + 5 + 19 * i] for i in range(count)]
    sequences = [native.sequence() for _ in prompts]
    for sequence, prompt in zip(sequences, prompts, strict=True):
        native.model.prefill(sequence, prompt[:-4], chunk_size=64)
    steps = [
        native.model.forward([Chunk(s, [p[i]]) for s, p in zip(sequences, prompts, strict=True)])
        for i in range(-4, 0)
    ]
    for index, (sequence, prompt) in enumerate(zip(sequences, prompts, strict=True)):
        native.model.release(sequence)
        together = torch.cat([step[index] for step in steps])
        assert torch.equal(together, alone(native, prompt)[-4:]), f"sequence {index}"


def test_mixed_prefill_and_decode(native: Lab, text: list[int], whole: Tensor):
    """Two sequences decode while two others are prefilled, one of them in the middle of its prompt."""
    a, b, c, d = (native.sequence() for _ in range(4))
    native.model.forward([Chunk(a, text[:50]), Chunk(b, text[:131]), Chunk(c, text[:77])])
    mixed = native.model.forward(
        [Chunk(a, text[50:51]), Chunk(c, text[77:110], 33), Chunk(b, text[131:132]), Chunk(d, text[:64], 64)]
    )
    expected = [whole[50:51], whole[77:110], whole[131:132], whole[:64]]
    for sequence in (a, b, c, d):
        native.model.release(sequence)
    for index, (got, want) in enumerate(zip(mixed, expected, strict=True)):
        assert torch.equal(got, want), f"chunk {index}"


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_pages(native: Lab, text: list[int], whole: Tensor, seed: int):
    sequence = native.sequence(len(text), shuffle=seed)
    assert sequence.pages != sorted(sequence.pages)
    got = _prefill_then_decode(native, sequence, text)
    assert torch.equal(got, whole[-3:])


@pytest.mark.parametrize("device", [{"threads": 1}, {"threads": 2}], ids=str)
@pytest.mark.parametrize("page_size", [1, 64])
def test_threads_and_page_sizes(text: list[int], whole: Tensor, device: dict, page_size: int):
    lab = Lab(page_size=page_size, tokens=1024, **device)
    got = _prefill_then_decode(lab, lab.sequence(), text)
    assert torch.equal(got, whole[-3:])


def _prefill_then_decode(lab: Lab, sequence: CachedSequence, text: list[int]) -> Tensor:
    """All but three tokens in two pieces, then those one by one; the logits of the three."""
    lab.model.forward([Chunk(sequence, text[:260])])
    lab.model.forward([Chunk(sequence, text[260:-3])])
    logits = [lab.model.forward([Chunk(sequence, [token])])[0] for token in text[-3:]]
    lab.model.release(sequence)
    return torch.cat(logits)
