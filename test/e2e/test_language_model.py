"""LanguageModel: chunks that make no launch are refused, and what fails changes nothing."""

import numpy as np
import pytest
from lab import Lab
from opennpu.runtime.device import NpuError
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


@pytest.mark.parametrize("name", ["block_table", "slot_mapping"])
@pytest.mark.parametrize("entry", ["behind the last", "negative", "far away"])
def test_a_corrupted_page_table_traps(native: Lab, monkeypatch, name, entry):
    """And writes nowhere: the pages of others hold what they held."""
    model, pool = native.model, native.pool
    wrong = {"behind the last": pool.pages * pool.page_size, "negative": -1, "far away": 0x7F7F7F7F}[entry]
    other, sequence = CachedSequence(), CachedSequence()
    model.forward([Chunk(other, [5, 6, 7, 8])])
    kept = pool.export_pages(other.pages)
    inputs, free = model.inputs, pool.free_pages

    def corrupted(chunks):
        given = inputs(chunks)
        given[name].flatten()[-1] = wrong
        return given

    with monkeypatch.context() as patch:
        patch.setattr(model, "inputs", corrupted)
        with pytest.raises(NpuError, match=rf"the list is {wrong}, outside 0 to \d+ \(limit\)") as error:
            model.forward([Chunk(sequence, [1, 2, 3])])
    assert error.value.status == "trap"
    assert (sequence.pages, pool.free_pages) == ([], free)
    assert np.array_equal(pool.export_pages(other.pages), kept)
    model.release(other)
