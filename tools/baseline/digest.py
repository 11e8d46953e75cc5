"""Logits as a few numbers a position: what two machines can compare without sending all of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TOP = 5
"""Tokens kept of a position: enough for the agreement of the first and of the first five."""
ROWS = 64
"""Positions whose logprobs are computed at once: a vocabulary is large."""
DIGITS = 5
"""Decimals of a logprob: far below what a rounding to bfloat16 moves it by, some 1e-2."""


def digest(logits: Tensor, tokens: Sequence[int]) -> dict:
    """Of logits [n, vocabulary] after each of n tokens: `ids` and `logprobs` of the likeliest TOP tokens
    of each position, and `next`, the logprob of the token that follows, of all but the last."""
    ids, logprobs, following = [], [], []
    for start in range(0, len(tokens), ROWS):
        rows = logits[start : start + ROWS].double().log_softmax(-1)
        values, indices = rows.topk(min(TOP, rows.shape[-1]), dim=-1)
        ids += indices.tolist()
        logprobs += decimals(values.tolist())
        targets = torch.tensor(tokens[start + 1 : start + 1 + len(rows)], device=rows.device)
        following += decimals(rows[: len(targets)].gather(1, targets[:, None]).flatten().tolist())
    return {"ids": ids, "logprobs": logprobs, "next": following}


def perplexity(following: Sequence[float]) -> float:
    """From the logprobs of the tokens that followed; infinite where no float64 holds it."""
    try:
        return math.exp(-sum(following) / len(following))
    except OverflowError:
        return math.inf


def decimals(value: float | list) -> float | list:
    """Numbers, and lists of them, with DIGITS decimals."""
    return [decimals(v) for v in value] if isinstance(value, list) else round(value, DIGITS)
