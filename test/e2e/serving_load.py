"""Sixty-four requests, and the settings of SGLang under which their answers must be the same."""

import asyncio
import random
import re
from dataclasses import dataclass
from pathlib import Path

import page_canary
from server_process import (
    Answer,
    Request,
    Server,
    abort,
    client,
    generate,
    hang_up,
)

LONGEST, SHORTEST = 1500, 3  # tokens of a prompt
POOL = 1792  # tokens: the longest request, and little beside it


def requests(text: list[int], count: int = 64) -> list[Request]:
    """Prompts of SHORTEST to LONGEST tokens out of a text, few of them long; two of three share a beginning.

    The first third is short with long answers, so that many run at once and outgrow the pool together:
    by more than the largest page, as SGLang keeps one free for a request that it admits.
    """
    choose = random.Random(count)

    def excerpt(length: int) -> list[int]:
        start = choose.randrange(len(text))
        return [text[(start + i) % len(text)] for i in range(length)]

    prefixes = [excerpt(LONGEST // 2), excerpt(LONGEST // 12), []]
    made = []
    for i in range(count):
        if 3 * i < count:
            length, new_tokens = choose.randint(SHORTEST, 150), choose.choice([24, 96, 96])
        else:
            length = round(SHORTEST * (LONGEST / SHORTEST) ** choose.random() ** 1.5)
            new_tokens = choose.randint(6, 20)
        prefix = prefixes[i % 3][: length * 3 // 4]
        made.append(Request([*prefix, *excerpt(length - len(prefix))], new_tokens))
    made[-1] = Request(excerpt(SHORTEST), 8)
    made[-2] = Request(prefixes[0] + excerpt(LONGEST - len(prefixes[0])), 8)
    return made


@dataclass(frozen=True)
class Settings:
    page_size: int
    chunk: int
    radix: bool
    overlap: bool
    mixed: bool

    def options(self) -> dict:
        return {
            "page_size": self.page_size,
            "chunked_prefill_size": self.chunk,
            "disable_radix_cache": not self.radix,
            "disable_overlap_schedule": not self.overlap,
            "enable_mixed_chunk": self.mixed,
        }

    def __str__(self) -> str:
        words = [f"pages of {self.page_size}", f"chunks of {self.chunk}"]
        words += [name if getattr(self, name) else f"no {name}" for name in ("radix", "overlap", "mixed")]
        return ", ".join(words)


MATRIX = [
    Settings(1, 512, True, True, False),
    Settings(1, 64, False, False, True),
    Settings(16, 512, True, False, True),
    Settings(16, 64, False, True, False),
    Settings(32, 512, False, False, False),
    Settings(32, 64, True, True, True),
    Settings(64, 512, False, True, True),
    Settings(64, 64, True, False, False),
]
"""An orthogonal array: every two values of two settings meet (those of two switches twice).

Chunks that are mixed with decoding are longer than a page: of less than a page SGLang begins no chunk.
"""

ALONE = Settings(16, 512, radix=False, overlap=False, mixed=False)
"""For requests one by one, where nothing of one is there for the next, nor for anybody to damage."""


ENVIRONMENT = {
    "OPENNPU_STRICT": "1",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
    "SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS": "1",  # forget a retraction at once
}


def server(model: Path, folder: Path, settings: Settings) -> Server:
    watched = settings is not ALONE
    return Server(
        model,
        folder / "server.log",
        ENVIRONMENT | (page_canary.environment(folder) if watched else {}),
        dtype="bfloat16",
        skip_tokenizer_init=True,
        max_total_tokens=POOL,
        max_running_requests=64,
        schedule_conservativeness=0.01,  # admit as many as fit now: they outgrow the pool later
        **settings.options(),
    )


@dataclass(frozen=True)
class Evidence:
    """What a server did while it answered."""

    largest_prefill: int  # tokens
    evicted: int  # tokens
    retracted: int  # requests
    cached: int  # tokens of prompts
    launches: int  # after which only the places of their tokens had changed

    def __str__(self) -> str:
        return (
            f"prefills of up to {self.largest_prefill} tokens, {self.evicted} tokens evicted, "
            f"{self.retracted} requests retracted, {self.cached} tokens of prompts from the cache, "
            f"{self.launches} launches watched"
        )


def evidence(running: Server) -> Evidence:
    log, metrics = running.log_text(), running.metrics()

    def counted(name: str) -> int:
        return int(metrics.get(f"sglang:{name}_total", 0))  # SGLang tells of no count before its first

    return Evidence(
        max(int(found) for found in re.findall(r"Prefill batch.*?#new-token: (\d+)", log)),
        counted("evicted_tokens"),
        counted("num_retracted_requests"),
        counted("cached_tokens"),
        max(map(int, re.findall(r"page canary: (\d+) launches", log)), default=0),
    )


def check(running: Server, settings: Settings, load: list[Request], expected: list[Answer]) -> Evidence:
    """All requests at once, and as many that do not last: answered as expected, bit for bit.

    In chunks, with evictions and retractions, and at the end the pool is as it was.
    """
    answers = asyncio.run(all_at_once(running.url, load))
    running.flush()
    seen = evidence(running)
    assert running.used_tokens() == 0, "pages are lost"
    wrong = [i for i, (got, alone) in enumerate(zip(answers, expected, strict=True)) if not same(got, alone)]
    assert not wrong, f"{settings}: {len(wrong)} of {len(load)} answers differ: {wrong}; {seen}"
    assert seen.largest_prefill <= settings.chunk < max(len(request.prompt) for request in load)
    assert seen.retracted, f"{settings}: the pool was large enough"
    assert bool(seen.evicted) == bool(seen.cached) == settings.radix
    assert seen.launches, "nobody watched the pages"
    return seen


async def all_at_once(url: str, load: list[Request]) -> list[Answer]:
    """The answers to a load, beside which every third request is there again, for a random while."""
    choose = random.Random(len(load))
    async with client() as session:
        passing = [
            choose.choice([abort, hang_up])(session, url, request, choose.expovariate(1.0))
            for request in load[::3]
        ]
        answers = asyncio.gather(*(generate(session, url, request) for request in load))
        await asyncio.gather(*passing)
        return await answers


def same(a: Answer, b: Answer) -> bool:
    return a.tokens == b.tokens and a.logprobs == b.logprobs
