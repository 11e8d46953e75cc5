"""Baseline files: written, read and checked. The format: `baseline.schema.json`, docs/validation.md."""

import json
from pathlib import Path
from typing import Any

FORMAT, VERSION = "opennpu-baseline", 2
SCHEMA = Path(__file__).with_name("baseline.schema.json")
LARGEST = 64 << 20  # bytes


class BaselineError(ValueError):
    """A file that is no baseline, or one of another version; the text says what is wrong where."""


def save(path: Path, recording: dict) -> None:
    """Raises OSError, and ValueError where a number is not finite, which JSON cannot tell."""
    path.write_text(json.dumps(recording, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")


def load(path: Path) -> dict:
    """The recording in a file, every field of it checked. Raises BaselineError, OSError."""
    if path.stat().st_size > LARGEST:
        raise BaselineError(f"{path} has more than {LARGEST >> 20} MiB: that is no baseline")
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{path} is not JSON: {error}") from None
    try:
        check(data)
    except BaselineError as error:
        raise BaselineError(f"{path}: {error}") from None
    return data


def check(data: Any) -> None:
    """Raises BaselineError, which names the first place that does not hold."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BaselineError(f"no baseline: `format` is not {FORMAT!r}. Record one with npu-baseline")
    version = data.get("version")
    if version != VERSION:
        older = isinstance(version, int) and version < VERSION
        remedy = "record it again" if older else "use a newer OpenNPU"
        raise BaselineError(f"version {version!r} of the format, where {VERSION} is read: {remedy}")
    if error := best_match(Draft202012Validator(json.loads(SCHEMA.read_text())).iter_errors(data)):
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
        raise BaselineError(f"{place.lstrip('.') or 'the file'}: {error.message[:200]}")
    _check_lengths(data)


def _check_lengths(data: dict) -> None:
    """What a schema cannot say: lists that belong together, and finite numbers."""
    tokens = len(data["text"]["tokens"])
    for name, run in data["runs"].items():
        if run["speed"]["prefill"]["tokens"] > tokens:
            raise BaselineError(f"runs.{name}.speed.prefill.tokens is more than the {tokens} of the text")
        logits = run["logits"]
        lengths = {"ids": tokens, "logprobs": tokens, "next": tokens - 1}
        for key, expected in lengths.items():
            if len(logits[key]) != expected:
                raise BaselineError(
                    f"runs.{name}.logits.{key} has {len(logits[key])} entries, not {expected}"
                )
        if len(run["generated"]) != len(data["prompts"]):
            raise BaselineError(f"runs.{name}.generated has not one entry for each prompt")
        for index, out in enumerate(run["generated"]):
            if not len(out["tokens"]) <= len(out["ids"]) == len(out["logprobs"]):
                raise BaselineError(f"runs.{name}.generated[{index}]: tokens, ids and logprobs do not fit")
        rows = [logits, *run["generated"]]
        pairs = (pair for row in rows for pair in zip(row["ids"], row["logprobs"], strict=True))
        if any(len(ids) != len(logprobs) for ids, logprobs in pairs):
            raise BaselineError(f"runs.{name}: an entry of ids and its logprobs differ in length")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number of JSON")
