"""LanguageModel: chunks that make no launch are refused, and what fails changes nothing."""

import pytest
from lab import Lab
from opennpu.runtime.language_model import CachedSequence, Chunk, KvPoolError
from opennpu.runtime.program import ProgramError


def test_refused_chunks(native: Lab):
    a, b = CachedSequence(), CachedSequence()
    refused = {
        "at least one chunk": [],
        "has 0 tokens": [Chunk(a, [])],
        "1 tokens and asks for the logits of 3": [Chunk(a, [1, 2, 3]), Chunk(b, [4], logits=3)],
        "logits of -1": [Chunk(a, [1], logits=-1)],
        "one chunk of a launch": [Chunk(a, [1, 2]), Chunk(a, [3, 4])],
        "exceed the model's context": [Chunk(a, [1] * (native.model.context_length + 1))],
    }
    free = native.pool.free_pages
    for message, chunks in refused.items():
        with pytest.raises(ProgramError, match=message):
            native.model.forward(chunks)
    with pytest.raises(ProgramError, match="no tokens"):
        native.model.prefill(a, [])
    assert (a.pages, b.pages, native.pool.free_pages) == ([], [], free)


def test_a_failed_launch_gives_its_pages_back(native: Lab, monkeypatch):
    sequence = CachedSequence()
    native.model.forward([Chunk(sequence, [1, 2, 3])])
    pages, free = list(sequence.pages), native.pool.free_pages

    def fail(*_):
        raise ProgramError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(native.program, "run", fail)
        with pytest.raises(ProgramError, match="injected"):
            native.model.forward([Chunk(sequence, [1] * 100)])
    assert (sequence.pages, sequence.length, native.pool.free_pages) == (pages, 3, free)
    native.model.release(sequence)


def test_pool_too_small_takes_nothing(native: Lab):
    pages = native.pool.alloc(native.pool.free_pages - 1)
    sequence = CachedSequence()
    with pytest.raises(KvPoolError, match="1 of its"):
        native.model.forward([Chunk(sequence, [1] * 100)])
    assert (sequence.pages, native.pool.free_pages) == ([], 1)
    native.pool.release(pages)
