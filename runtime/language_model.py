"""A compiled language model: batches of sequences in KV pages, and generation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program, ProgramError
from torch import Tensor

Sampler = Callable[[Tensor], int]
"""From the logits of one row, [vocabulary] in float32, to a token."""


class KvPoolError(RuntimeError):
    """The KV pool has too few free pages for a sequence."""


@dataclass
class CachedSequence:
    """Tokens whose keys and values lie in pages of the pool, in order."""

    pages: list[int] = field(default_factory=list)
    length: int = 0  # tokens


@dataclass(frozen=True)
class Chunk:
    """The next tokens of a sequence, for one launch: a prompt, a piece of it, or one token."""

    sequence: CachedSequence
    tokens: Sequence[int]
    logits: int = 1  # of how many of the last tokens the logits are wanted


class LanguageModel:
    """Runs a program made by npu-export and npu-compile on sequences of tokens.

    pool holds the keys and values; its page size is free, and so is which pages a
    sequence gets.
    """

    def __init__(self, program: Program, pool: PagePool):
        if program.signature.kv is None or "input_ids" not in program.signature.tensors("input"):
            raise ProgramError("the program is not a language model made by npu-export: use Program.run")
        self.program, self.pool = program, pool
        self.context_length: int = program.signature.model["context_length"]
        self.eos_token_ids = frozenset(program.signature.model["eos_token_ids"])
        self.max_tokens = program.signature.symbols["T"][1]
        """The most tokens of one launch; None where there is no limit."""

    def forward(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """One launch over any mix of prompts, pieces of prompts and single tokens.

        Extends each chunk's sequence; returns for each the logits that it asks for,
        [chunk.logits, vocabulary] in float32. Raises KvPoolError when pages are missing, ProgramError
        for chunks that make no launch, NpuError; the sequences are as before then.
        """
        self._check(chunks)
        owned = [len(chunk.sequence.pages) for chunk in chunks]
        self._reserve(chunks)
        try:
            logits = self.program.run(self.inputs(chunks), self.pool)["logits"]
        except BaseException:
            for chunk, count in zip(chunks, owned, strict=True):
                self.pool.release(chunk.sequence.pages[count:])
                del chunk.sequence.pages[count:]
            raise
        for chunk in chunks:
            chunk.sequence.length += len(chunk.tokens)
        return list(logits[: sum(c.logits for c in chunks)].split([c.logits for c in chunks]))

    def prefill(self, sequence: CachedSequence, tokens: Sequence[int], chunk_size: int = 512) -> Tensor:
        """Feeds tokens, at least one, in pieces; the logits of the last one, [vocabulary]."""
        if not tokens:
            raise ProgramError("there are no tokens to prefill")
        size = min(chunk_size, self.max_tokens or chunk_size)
        for start in range(0, len(tokens), size):
            (logits,) = self.forward([Chunk(sequence, tokens[start : start + size])])
        return logits[-1]

    def generate(
        self, prompt: Sequence[int], max_new_tokens: int, sample: Sampler | None = None
    ) -> Iterator[int]:
        """The tokens after the prompt, one by one, up to an end-of-sequence token.

        sample chooses a token from its logits; the most likely one without it.
        """
        sample = sample or greedy
        sequence = CachedSequence()
        try:
            logits = self.prefill(sequence, prompt)
            for produced in range(1, max_new_tokens + 1):
                token = sample(logits)
                if token in self.eos_token_ids:
                    return
                yield token
                if produced < max_new_tokens:
                    logits = self.forward([Chunk(sequence, [token])])[0][-1]
        finally:
            self.release(sequence)

    def release(self, sequence: CachedSequence) -> None:
        """Gives the pages of a sequence back; it is empty then."""
        self.pool.release(sequence.pages)
        sequence.pages, sequence.length = [], 0

    def _check(self, chunks: Sequence[Chunk]) -> None:
        if not chunks:
            raise ProgramError("a launch needs at least one chunk")
        if len({id(chunk.sequence) for chunk in chunks}) < len(chunks):
            raise ProgramError("a sequence may stand in one chunk of a launch")
        for index, chunk in enumerate(chunks):
            length = chunk.sequence.length + len(chunk.tokens)
            if not 0 <= chunk.logits <= len(chunk.tokens) or not chunk.tokens:
                raise ProgramError(
                    f"chunk {index} has {len(chunk.tokens)} tokens and asks for the logits of {chunk.logits}"
                )
            if length > self.context_length:
                raise ProgramError(f"{length} tokens exceed the model's context of {self.context_length}")

    def _reserve(self, chunks: Sequence[Chunk]) -> None:
        """Pages for the new tokens of all chunks, or none."""
        page_size = self.pool.page_size
        missing = []
        for chunk in chunks:
            length = chunk.sequence.length + len(chunk.tokens)
            missing.append(max(0, -(-length // page_size) - len(chunk.sequence.pages)))
        if (total := sum(missing)) > self.pool.free_pages:
            raise KvPoolError(
                f"the KV pool is too small: {total} more pages of {page_size} tokens are needed and "
                f"{self.pool.free_pages} of its {self.pool.pages} are free. Release sequences, or open "
                "a larger pool (npu-run: --kv-tokens)"
            )
        for chunk, count in zip(chunks, missing, strict=True):
            chunk.sequence.pages += self.pool.alloc(count) if count else []

    def inputs(self, chunks: Sequence[Chunk]) -> dict[str, Tensor]:
        """The program's inputs for sequences that have the pages."""
        return batch_inputs(chunks, self.pool.page_size)


def batch_inputs(chunks: Sequence[Chunk], page_size: int) -> dict[str, Tensor]:
    """The inputs of a language program for chunks whose sequences have the pages that they need.

    `opennpu::paged_attention` says what they mean.
    """
    columns = max(len(chunk.sequence.pages) for chunk in chunks)
    block_table = torch.zeros(len(chunks), columns, dtype=torch.int32)
    tokens, positions, slots, rows, starts = [], [], [], [], [0]
    for b, chunk in enumerate(chunks):
        pages, begin = torch.tensor(chunk.sequence.pages), chunk.sequence.length
        position = torch.arange(begin, begin + len(chunk.tokens))
        block_table[b, : len(pages)] = pages
        tokens += chunk.tokens
        positions.append(position)
        slots.append(pages[position // page_size] * page_size)
        slots[-1] += position % page_size
        starts.append(len(tokens))
        rows += range(len(tokens) - chunk.logits, len(tokens))
    return {
        "input_ids": torch.tensor(tokens),
        "positions": torch.cat(positions),
        "slot_mapping": torch.cat(slots),
        "block_table": block_table,
        "seq_lens": torch.tensor([c.sequence.length + len(c.tokens) for c in chunks]),
        "q_start": torch.tensor(starts),
        "logits_rows": torch.tensor(rows or [0]),  # a launch computes at least one row
    }


def greedy(logits: Tensor) -> int:
    return int(logits.argmax())


def sampler(temperature: float, seed: int | None = None) -> Sampler:
    """Draws from softmax(logits / temperature); greedy at 0. A seed makes it repeatable."""
    if temperature == 0:
        return greedy
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    return lambda logits: int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))
