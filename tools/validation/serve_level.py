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
    """The recording's prompts at each concurrency: beside each other, and the first beside the baseline."""
    runs = needed_runs(subject, recording)
    expected = runs["fp32"]["generated"]
    prompts = [prompt["tokens"] for prompt in recording["prompts"]]
    count = max(len(out["ids"]) for out in expected)
    progress(f"{len(prompts)} prompts at {', '.join(map(str, concurrency))} at once")
    answers = _serve(subject, prompts, count, concurrency)
    first = answers[0]["tokens"]
    level = Level("serve")
    for limit, answer in zip(concurrency, answers, strict=True):
        other = sum(a != b for a, b in zip(answer["tokens"], first, strict=True))
        name = f"texts at concurrency {limit} that differ from those at {concurrency[0]}"
        level.checks.append(Check(name, other, 0, SAME))
    theirs = agreement(runs["bf16"]["logits"], runs["fp32"]["logits"]) if subject.dtype == "bf16" else None
    ends = frozenset(_ends(subject.model_dir))
    given = zip(recording["prompts"], first, expected, strict=True)
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
            env=os.environ | {"SGLANG_PLATFORM": "opennpu"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ValidationError(f"SGLang's engine took more than {LIMIT} s") from None
    if result.returncode or not path.exists():
        last = "\n".join(result.stderr.strip().splitlines()[-12:])
        raise ValidationError(f"SGLang's engine failed:\n{last}")
    return json.loads(path.read_text())


def _ends(model_dir: Path) -> list[int]:
    """The tokens that end a text, as the model's configuration tells them."""
    for name in ("generation_config.json", "config.json"):
        if (model_dir / name).exists():
            end = json.loads((model_dir / name).read_text()).get("eos_token_id")
            if end is not None:
                return end if isinstance(end, list) else [end]
    return []
