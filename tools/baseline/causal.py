"""A causal language model of transformers: logits of a text, greedy text, and how long both take."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

WARM_UP, ROUNDS = 1, 3
"""Of a timed prefill."""


@dataclass(frozen=True)
class Generated:
    """Greedy tokens; of each step the likeliest with their logprobs, and seconds of all but the first."""

    tokens: list[int]
    ids: list[list[int]]
    logprobs: list[list[float]]
    seconds: list[float]


class Causal:
    """The model of a directory in one dtype on one device. `text` in, tokens and logits out."""

    def __init__(self, model_dir: Path, dtype: torch.dtype, device: str = "cpu"):
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, local_files_only=True)
        self.model, self.device = model.eval().to(device), device
        ends = model.generation_config.eos_token_id
        self.ends = set(ends) if isinstance(ends, list) else {ends}

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int]) -> Tensor:
        """[tokens, vocabulary] in float32 on the host, teacher-forced."""
        return self.model(torch.tensor([tokens], device=self.device)).logits[0].float().cpu()

    @torch.inference_mode()
    def greedy(self, prompt: Sequence[int], count: int, top: int = 1) -> Generated:
        """At most `count` steps after the prompt, up to one that ends the text, whose token is left out."""
        given, cache = torch.tensor([prompt], device=self.device), None
        out, times = Generated([], [], [], []), [time.perf_counter()]
        for _ in range(count):
            step = self.model(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            row, cache = step.logits[0, -1].double().log_softmax(-1), step.past_key_values
            logprobs, ids = row.topk(top)
            out.ids.append(ids.tolist())
            out.logprobs.append(logprobs.tolist())
            times.append(time.perf_counter())
            if out.ids[-1][0] in self.ends:
                break
            out.tokens.append(out.ids[-1][0])
            given = ids[None, :1]
        out.seconds.extend(b - a for a, b in pairwise(times[1:]))
        return out

    @torch.inference_mode()
    def prefill_seconds(self, tokens: Sequence[int]) -> float:
        """The median of ROUNDS passes over the tokens, with the logits of the last one."""
        given = torch.tensor([tokens], device=self.device)

        def once() -> float:
            start = time.perf_counter()
            self.model(given, logits_to_keep=1).logits[0, -1].argmax().item()  # waits for a GPU
            return time.perf_counter() - start

        for _ in range(WARM_UP):
            once()
        return statistics.median(once() for _ in range(ROUNDS))


def load_tokenizer(model_dir: Path):
    """Raises OSError or ValueError where the directory has none."""
    return AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
