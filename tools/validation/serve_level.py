"""SGLang's engine on the chip at several concurrencies: its text may not depend on what shares a batch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from opennpu.tools.validation import engine
from opennpu.tools.validation.model_level import agreement, greedy_check, needed_runs, parting
from opennpu.tools.validation.results import Check, Level
from opennpu.tools.validation.subject import PAGE_SIZE, Subject, ValidationError

LIMIT = 900  # seconds that an engine may take
SAME = "a token's result is the same bit for bit whatever else is in its batch"


def validate(
    subject: Subject,
    recording: dict,
    concurrency: Sequence[int],
    progress: Callable[[str], None] = lambda stage: None,
) -> Level:
    """The recording's prompts one at a time, beside the baseline, then at each concurrency beside that.

    They come again and again up to the largest concurrency, which is so reached.
    """
    runs = needed_runs(subject, recording)
    expected = runs["fp32"]["generated"]
    concurrency = [1, *(limit for limit in concurrency if limit != 1)]
    own = [prompt["tokens"] for prompt in recording["prompts"]]
    prompts = [own[i % len(own)] for i in range(max(len(own), *concurrency))]
    count = max(len(out["ids"]) for out in expected)
    progress(f"{len(prompts)} prompts at {', '.join(map(str, concurrency))} at once")
    answers = _serve(subject, prompts, count, concurrency)
    first = answers[0]["tokens"]
    level = Level("serve")
    for limit, answer in zip(concurrency[1:], answers[1:], strict=True):
        other = sum(a != b for a, b in zip(answer["tokens"], first, strict=True))
        name = f"texts at concurrency {limit} that differ from those of one at a time"
        level.checks.append(Check(name, other, 0, SAME))
    theirs = agreement(runs["bf16"]["logits"], runs["fp32"]["logits"]) if subject.dtype == "bf16" else None
    ends = frozenset(_ends(subject.model_dir))
    given = zip(recording["prompts"], first[: len(own)], expected, strict=True)
    rows = [parting(p["label"], tokens[: len(e["ids"])], e, ends) for p, tokens, e in given]
    level.checks.append(greedy_check(rows, theirs))
    level.data = {
        "prompts": len(prompts),
        "greedy": rows,
        "rows": [
            {
                "concurrency": limit,
                "tokens_per_s": sum(map(len, answer["tokens"])) / answer["seconds"],
                "same": answer["tokens"] == first,
            }
            for limit, answer in zip(concurrency, answers, strict=True)
        ],
    }
    level.lines = [
        f"concurrency {row['concurrency']}: {row['tokens_per_s']:.1f} tokens/s" for row in level.data["rows"]
    ]
    return level


def _serve(subject: Subject, prompts: list[list[int]], count: int, concurrency: Sequence[int]) -> list[dict]:
    longest = max(map(len, prompts)) + count
    options = {
        "model_path": str(subject.model_dir),
        "dtype": {"bf16": "bfloat16", "fp32": "float32"}[subject.dtype],
        "skip_tokenizer_init": True,
        "page_size": PAGE_SIZE,
        "max_running_requests": max(concurrency),
        "max_total_tokens": max(2048, 2 * max(concurrency) * longest),
        "disable_radix_cache": True,  # else what came first would be reused, not computed
        "log_level": "error",
    }
    request = {"engine": options, "prompts": prompts, "tokens": count, "concurrency": list(concurrency)}
    path = Path(subject.work_dir) / "answers.json"
    try:
        result = subprocess.run(
            [sys.executable, engine.__file__, str(path)],
            input=json.dumps(request), capture_output=True, text=True, timeout=LIMIT,
            env=_environment(subject),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValidationError(f"SGLang's engine took more than {LIMIT} s") from None
    if result.returncode or not path.exists():
        last = "\n".join(result.stderr.strip().splitlines()[-12:])
        raise ValidationError(f"SGLang's engine failed:\n{last}")
    return json.loads(path.read_text())


def _environment(subject: Subject) -> dict[str, str]:
    """The subject's chip and engine; strict, so that what is not in the compiled program is an error."""
    settings = {
        "SGLANG_PLATFORM": "opennpu",
        "OPENNPU_CHIP": subject.target,
        "OPENNPU_ENGINE": subject.engine,
        "OPENNPU_EAGER": "0",
        "OPENNPU_STRICT": "1",
    }
    if subject.threads:
        settings["OPENNPU_THREADS"] = str(subject.threads)
    return os.environ | settings


def _ends(model_dir: Path) -> list[int]:
    """The tokens that end a text, as the model's configuration tells them."""
    for name in ("generation_config.json", "config.json"):
        if (model_dir / name).exists():
            end = json.loads((model_dir / name).read_text()).get("eos_token_id")
            if end is not None:
                return end if isinstance(end, list) else [end]
    return []
