"""The whole model beside a baseline: logits of a text, perplexity, greedy text, and speed."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from opennpu.runtime.container import Container
from opennpu.runtime.language_model import CachedSequence
from opennpu.runtime.timing import TimedModel
from opennpu.tools.baseline import machine
from opennpu.tools.baseline.causal import ROUNDS
from opennpu.tools.baseline.digest import digest, perplexity
from opennpu.tools.baseline.record import of_roofline, speed
from opennpu.tools.validation.results import Check, Level
from opennpu.tools.validation.subject import ChipModel, Subject, ValidationError

ERROR_RATIO = 1.5
MARGIN_FACTOR = 2
SINGLE = {"top": 0.99, "logprob": 2e-3, "perplexity": 1e-3, "margin": 5e-3}
SINGLE_REASON = "float32 sums in another order: nothing but ties within 1e-3 falls otherwise"


@dataclass(frozen=True)
class Agreement:
    """How a digest of logits agrees with the exact one."""

    top1: float
    top5: float
    logprob: float  # root mean square of the differences of logprobs of the tokens that both list
    log_perplexity: float  # the difference, mean of all tokens
    scatter: float  # its standard error
    moved: float  # the most that the margin between the exact one's first two tokens differs


def validate(
    subject: Subject,
    recording: dict,
    unit: str = "tokens/s",
    min_parity: float = 0.0,
    progress: Callable[[str], None] = lambda stage: None,
) -> Level:
    """Beside a recording (baseline/record.py), of the text and the prompts in it."""
    runs = needed_runs(subject, recording)
    tokens = recording["text"]["tokens"]
    progress("chip: load")
    chip = subject.load(tokens=len(tokens) + 1024)
    if len(tokens) > chip.model.context_length:
        raise ValidationError(
            f"the text has {len(tokens)} tokens, the model a context of {chip.model.context_length}"
        )
    progress("chip: logits of the text")
    found = digest(chip.logits(tokens), tokens)
    exact = runs["fp32"]["logits"]
    ours = agreement(found, exact)
    theirs = agreement(runs["bf16"]["logits"], exact) if subject.dtype == "bf16" else None
    level = Level("model", logits_checks(ours, theirs, len(tokens)))
    level.data["perplexity"] = {f"PyTorch {name}": run["perplexity"] for name, run in runs.items()}
    level.data["perplexity"]["chip"] = perplexity(found["next"])
    level.data["agreement"] = {"chip": vars(ours), **({"PyTorch bf16": vars(theirs)} if theirs else {})}
    level.data["text"] = {"name": recording["text"]["name"], "tokens": len(tokens)}
    steps: list[float] = []
    rows = []
    for index, prompt in enumerate(recording["prompts"]):
        progress(f"chip: prompt {index + 1} of {len(recording['prompts'])}")
        expected = runs["fp32"]["generated"][index]
        generated = timed_greedy(chip, prompt["tokens"], len(expected["ids"]), steps)
        rows.append(parting(prompt["label"], generated, expected, chip.model.eos_token_ids))
    level.data["greedy"] = rows
    level.checks.append(greedy_check(rows, theirs))
    progress("chip: speed")
    _speed(level, subject, chip, recording, steps, unit, min_parity)
    level.lines = _lines(level, unit)
    return level


def needed_runs(subject: Subject, recording: dict) -> dict[str, dict]:
    """The recorded runs that a program of this dtype is judged by."""
    names = ["fp32"] if subject.dtype == "fp32" else ["fp32", "bf16"]
    if missing := [name for name in names if name not in recording["runs"]]:
        options = " ".join(f"--dtype {name}" for name in names)
        raise ValidationError(f"the baseline has no run in {', '.join(missing)}: record it with {options}")
    return {name: recording["runs"][name] for name in names}


# ---- logits


def agreement(found: dict, exact: dict) -> Agreement:
    """Of two digests of the same tokens."""
    rows = list(zip(found["ids"], found["logprobs"], exact["ids"], exact["logprobs"], strict=True))
    shared, differences, moved = 0, [], [0.0]
    for ids, logprobs, exact_ids, exact_logprobs in rows:
        here, there = dict(zip(ids, logprobs, strict=True)), dict(zip(exact_ids, exact_logprobs, strict=True))
        both = here.keys() & there.keys()
        shared += len(both)
        differences += [here[token] - there[token] for token in both]
        if len(exact_ids) > 1 and set(exact_ids[:2]) <= both:
            first, second = (here[token] - there[token] for token in exact_ids[:2])
            moved.append(abs(first - second))
    following = [a - b for a, b in zip(found["next"], exact["next"], strict=True)]
    mean = _mean(following)
    spread = math.sqrt(sum((d - mean) ** 2 for d in following) / max(1, len(following) - 1))
    return Agreement(
        top1=sum(ids[0] == exact_ids[0] for ids, _, exact_ids, _ in rows) / len(rows),
        top5=shared / sum(len(exact_ids) for _, _, exact_ids, _ in rows),
        logprob=math.sqrt(_mean([d * d for d in differences])) if differences else math.inf,
        log_perplexity=-mean,
        scatter=spread / math.sqrt(len(following)),
        moved=max(moved),
    )


def _mean(values: Sequence[float]) -> float:
    """Of any floats: NaN and infinities make a NaN or an infinity, as in IEEE 754."""
    return sum(values) / len(values)


def logits_checks(ours: Agreement, theirs: Agreement | None, tokens: int) -> list[Check]:
    if theirs is None:
        top, logprob, shift = SINGLE["top"], SINGLE["logprob"], SINGLE["perplexity"]
        reasons = [SINGLE_REASON] * 3
        tops = {"top1": top, "top5": top}
    else:
        tops = {"top1": _scattered(theirs.top1, tokens), "top5": _scattered(theirs.top5, 5 * tokens)}
        logprob = ERROR_RATIO * theirs.logprob
        shift = abs(theirs.log_perplexity) + 3 * theirs.scatter
        reasons = [
            "PyTorch's own agreement in bfloat16, less three times the square root of the number that "
            "differ: near ties fall either way",
            f"{ERROR_RATIO} times PyTorch's own error in bfloat16: roundings in other places",
            "what PyTorch's own roundings to bfloat16 move it by, and three times the standard error of that",
        ]
    return [
        Check("top-1 agreement with fp32", ours.top1, tops["top1"], reasons[0], at_least=True),
        Check("top-5 agreement with fp32", ours.top5, tops["top5"], reasons[0], at_least=True),
        Check("error of logprobs (rms)", ours.logprob, logprob, reasons[1]),
        Check("change of ln(perplexity)", abs(ours.log_perplexity), shift, reasons[2]),
    ]


def _scattered(agreement: float, count: int) -> float:
    return agreement - 3 * math.sqrt(max(1.0, (1 - agreement) * count)) / count


# ---- greedy text


def timed_greedy(chip: ChipModel, prompt: Sequence[int], count: int, steps: list[float]) -> list[int]:
    """Greedy tokens; the seconds of each step but the first are added to `steps`."""
    tokens, times = [], []
    for token in chip.model.generate(prompt, count):
        tokens.append(token)
        times.append(time.perf_counter())
    steps += [b - a for a, b in pairwise(times)]
    return tokens


def parting(label: str, found: Sequence[int], expected: dict, ends: frozenset[int]) -> dict:
    """Where greedy text leaves that of the exact run. `margin` is by how much the exact run prefers its own
    token there: the difference of the logprobs, or to the last one listed; None for equal texts."""
    end = next(iter(ends), -1)
    row = {"label": label, "steps": len(expected["ids"]), "position": None, "margin": None}
    for i, (ids, logprobs) in enumerate(zip(expected["ids"], expected["logprobs"], strict=True)):
        token = found[i] if i < len(found) else end
        if token == ids[0] or {token, ids[0]} <= ends:
            continue
        other = logprobs[ids.index(token)] if token in ids else logprobs[-1]
        return {**row, "position": i, "margin": logprobs[0] - other, "expected": ids[0], "found": token}
    return row


def greedy_check(rows: Sequence[dict], theirs: Agreement | None) -> Check:
    margins = [row["margin"] for row in rows if row["margin"] is not None]
    worst = next((row for row in rows if row["margin"] == max(margins, default=None)), None)
    detail = f"{len(margins)} of {len(rows)} texts part"
    if worst:
        detail += f"; the widest after {worst['position']} tokens of {worst['label']!r}"
    if theirs is None:
        bound, reason = SINGLE["margin"], SINGLE_REASON
    else:
        bound = MARGIN_FACTOR * theirs.moved
        reason = (
            f"{MARGIN_FACTOR} times the most that PyTorch's roundings to bfloat16 move such a margin by over "
            "the text, which is a sample: on other prompts they move one further"
        )
    return Check(
        "margin in fp32 where greedy text parts", max(margins, default=0.0), bound, reason, detail=detail
    )


# ---- speed


def _speed(
    level: Level,
    subject: Subject,
    chip: ChipModel,
    recording: dict,
    steps: Sequence[float],
    unit: str,
    least: float,
) -> None:
    """Prefill and decode of one sequence, beside the recorded run of the same dtype."""
    recorded = recording["runs"][subject.dtype]["speed"]
    count = recorded["prefill"]["tokens"]
    seconds = _prefill_seconds(chip, recording["text"]["tokens"][:count])
    here = speed(count, seconds, steps, recorded)
    limits = machine.limits("cpu")
    hardware = recording["hardware"]
    rows = {
        f"chip, {subject.engine} engine on {machine.hardware('cpu')['name']}": (here, limits),
        f"PyTorch {subject.dtype} on {hardware['name']}": (recorded, recording["limits"]),
    }
    table = [
        {"who": who, "tokens/s": _rates(s), "roofline": of_roofline(s, lim)} for who, (s, lim) in rows.items()
    ]
    estimate = TimedModel(Container.open(subject.program_path)).batch(1, 1, count)
    chip_name = chip.program.signature.chip.name
    table.append(
        {
            "who": f"{chip_name} by its timing model",
            "tokens/s": {"prefill": None, "decode": 1 / estimate.seconds},
            "roofline": {"prefill": None, "decode": estimate.roofline_ratio},
        }
    )
    level.data["speed"] = table
    parity = {what: _ratio(table[0][unit][what], table[1][unit][what]) for what in ("prefill", "decode")}
    level.data["parity"] = {"unit": unit, **parity}
    if least:
        reason = "asked for with --min-parity"
        level.checks += [
            Check(f"{w} parity ({unit})", p, least, reason, at_least=True) for w, p in parity.items()
        ]


def _rates(run_speed: dict) -> dict[str, float]:
    return {what: run_speed[what]["tokens_per_s"] for what in ("prefill", "decode")}


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0


def _prefill_seconds(chip: ChipModel, tokens: Sequence[int]) -> float:
    """As baseline/causal.py measures it."""

    def once() -> float:
        sequence, start = CachedSequence(), time.perf_counter()
        chip.model.prefill(sequence, tokens, len(tokens))
        seconds = time.perf_counter() - start
        chip.model.release(sequence)
        return seconds

    once()
    return statistics.median(once() for _ in range(ROUNDS))


def _lines(level: Level, unit: str) -> list[str]:
    perplexities = ", ".join(f"{who} {value:.4f}" for who, value in level.data["perplexity"].items())
    lines = [f"perplexity: {perplexities}"]
    digits = 3 if unit == "roofline" else 1
    for row in level.data["speed"]:
        shown = [f"{what} {value:.{digits}f}" for what, value in row[unit].items() if value is not None]
        lines.append(f"{unit}, {row['who']}: {', '.join(shown)}")
    parity = level.data["parity"]
    lines.append(f"parity in {unit}: prefill {parity['prefill']:.2f}, decode {parity['decode']:.2f}")
    return lines
