"""Recording: one model, one text, some prompts, in some dtypes, on one machine."""

import gc
import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from . import machine
from .causal import Causal, load_tokenizer
from .digest import TOP, decimals, digest, perplexity
from .files import FORMAT, VERSION
from .prompts import prompts
from .work import Weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPEED_TOKENS = 128
"""Of the text, for the time of a prefill."""


def record(
    model_dir: Path,
    text: Path,
    dtypes: Sequence[str] = tuple(DTYPES),
    device: str = "cpu",
    tokens: int = 256,
    generate: int = 16,
    progress: Callable[[str], None] = lambda stage: None,
) -> dict:
    """The recording, as it stands in a baseline file. The first `tokens` tokens of the text are read, and
    `generate` tokens are generated after each prompt. OSError or ValueError where the model cannot be
    loaded or the text is too short."""
    tokenizer = load_tokenizer(model_dir)
    content = text.read_text(encoding="utf-8")
    ids = tokenizer(content).input_ids[:tokens]
    if len(ids) < 2:
        raise ValueError(f"{text} has {len(ids)} tokens; at least two are needed")
    questions = [{"label": label, "tokens": prompt} for label, prompt in prompts(tokenizer)]
    progress("limits of the machine")
    result = {
        "format": FORMAT,
        "version": VERSION,
        "model": {"name": model_dir.resolve().name, "config_sha256": config_digest(model_dir)},
        "hardware": machine.hardware(device),
        "limits": {name: round(value) for name, value in machine.limits(device).items()},
        "versions": machine.versions(),
        "text": {"name": text.name, "tokens": ids},
        "prompts": questions,
        "runs": {},
    }
    for name in dtypes:
        result["runs"][name] = _run(model_dir, name, device, ids, questions, generate, progress)
        gc.collect()
    return result


def _run(model_dir, name, device, ids, questions, generate, progress) -> dict:
    progress(f"{name}: load")
    model = Causal(model_dir, DTYPES[name], device)
    progress(f"{name}: logits of the text")
    logits = digest(model.logits(ids), ids)
    generated, seconds = [], []
    for index, question in enumerate(questions):
        progress(f"{name}: prompt {index + 1} of {len(questions)}")
        out = model.greedy(question["tokens"], generate, TOP)
        generated.append({"tokens": out.tokens, "ids": out.ids, "logprobs": decimals(out.logprobs)})
        seconds += out.seconds
    progress(f"{name}: speed")
    given = ids[:SPEED_TOKENS]
    prefill = model.prefill_seconds(given)
    weights, itemsize = Weights.of(model.model), DTYPES[name].itemsize
    work = {"prefill": weights.work(len(given), itemsize), "decode": weights.work(1, itemsize)}
    return {
        "perplexity": perplexity(logits["next"]),
        "logits": logits,
        "generated": generated,
        "speed": speed(len(given), prefill, seconds, work),
    }


def speed(tokens: int, prefill: float, decode: Sequence[float], work: Mapping[str, dict]) -> dict:
    """Seconds as a file tells them; decode is one sequence. `work`: `flop` and `bytes` of both."""
    step = statistics.median(decode) if decode else 0.0
    own = {what: {name: work[what][name] for name in ("flop", "bytes")} for what in ("prefill", "decode")}
    return {
        "prefill": {"tokens": tokens, "seconds": prefill, "tokens_per_s": tokens / prefill, **own["prefill"]},
        "decode": {"seconds": step, "tokens_per_s": 1 / step if step else 0.0, **own["decode"]},
    }


def of_roofline(run_speed: dict, limits: dict) -> dict[str, float]:
    """Prefill and decode as fractions of the time that the machine's limits would allow."""

    def fraction(launch: dict) -> float:
        bound = max(launch["flop"] / limits["flop_per_s"], launch["bytes"] / limits["bytes_per_s"])
        return bound / launch["seconds"] if launch["seconds"] else 0.0

    return {what: fraction(run_speed[what]) for what in ("prefill", "decode")}


def config_digest(model_dir: Path) -> str:
    """Which model it is: the sha256 of its config.json."""
    return hashlib.sha256((model_dir / "config.json").read_bytes()).hexdigest()
