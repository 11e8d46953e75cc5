"""Sampling is SGLang's, on the host: logits leave the chip once a step, token ids come back.

The most likely tokens of a batch that asks for nothing else are found on the chip. Any other way of
sampling orders the vocabulary, draws random numbers, or tells the host of it: SGLang's sampler then runs
on tensors of the host as a whole. Penalties, biases and vocabulary masks of grammars are applied on the
chip before.
"""

import dataclasses

import torch
from sglang.srt.layers.sampler import Sampler, register_sampler_backend
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

BACKEND = "pytorch"
"""SGLang's sampler asks for this name when it has no kernels of a device."""

FIELDS = (
    "temperatures",
    "top_ps",
    "top_ks",
    "min_ps",
    "sampling_seed",
    "sampling_mask_batch_indices",
    "sampling_support_logprobs_capture_indices",
)
"""The tensors of SamplingBatchInfo that the sampler reads."""

MASKS = (
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammar.apply_vocab_mask",
    "sglang.srt.constrained.xgrammar_backend.XGrammarGrammarBackend.apply_vocab_mask",
)
"""What applies a mask of bits to logits, and knows no device beside SGLang's own."""

WORD = 32  # bits of a mask's element


class HostSampler(Sampler):
    """SGLang's sampler, on the host unless the greatest logit is all that is asked for."""

    def __init__(self):
        super().__init__()
        self._copies = WeakTensorKeyDictionary()

    def forward(
        self,
        logits_output,
        sampling_info: SamplingBatchInfo,
        return_logprob,
        top_logprobs_nums,
        token_ids_logprobs,
        positions,
        *,
        logprob_logits=None,
    ) -> Tensor:
        """The next tokens [B], on the device; log-probabilities, where asked for, in `logits_output`."""
        rest = (return_logprob, top_logprobs_nums, token_ids_logprobs)
        if is_plain(sampling_info) and not return_logprob:
            return super().forward(
                logits_output, sampling_info, *rest, positions, logprob_logits=logprob_logits
            )
        logits = logits_output.next_token_logits
        logits_output.next_token_logits = logits.cpu()
        try:
            tokens = super().forward(
                logits_output,
                self._on_host(sampling_info),
                *rest,
                positions if sampling_info.sampling_seed is None else positions.cpu(),
                logprob_logits=None if logprob_logits is None else logprob_logits.cpu(),
            )
        finally:
            logits_output.next_token_logits = logits
        return tokens.to(logits.device, non_blocking=True)

    def _on_host(self, info: SamplingBatchInfo) -> SamplingBatchInfo:
        """The same for a sampler whose tensors are the host's."""
        tensors = {name: self._copy(getattr(info, name)) for name in FIELDS}
        processors = {
            key: dataclasses.replace(entry, indices=entry.indices.cpu())
            for key, entry in (info.custom_logit_processor or {}).items()
        }
        return dataclasses.replace(info, **tensors, custom_logit_processor=processors, device="cpu")

    def _copy(self, tensor: Tensor | None) -> Tensor | None:
        """On the host; made once a tensor: SGLang keeps it, unchanged, while the batch has its requests."""
        if tensor is None:
            return None
        if tensor not in self._copies:
            self._copies[tensor] = tensor.cpu()
        return self._copies[tensor]


def is_plain(info: SamplingBatchInfo) -> bool:
    """Whether the greatest logit of each row decides, and nothing is told to other processes of it."""
    special = (info.grammars, info.has_custom_logit_processor, info.sampling_mask_batch_indices is not None)
    return info.is_all_greedy and not any(special)


def apply_mask(logits: Tensor, mask: Tensor) -> None:
    """logits [B, vocabulary] become -inf where bit v mod 32 of mask[b, v div 32] (int32) is 0."""
    places = torch.arange(WORD, dtype=mask.dtype, device=mask.device)
    bits = torch.bitwise_right_shift(mask.unsqueeze(-1), places) & 1
    logits.masked_fill_(bits.flatten(1)[:, : logits.shape[1]] == 0, -torch.inf)


def _apply_vocab_mask(original, *args, logits: Tensor, vocab_mask: Tensor) -> None:
    if logits.device.type == "opennpu":
        apply_mask(logits, vocab_mask)
    else:
        original(*args, logits=logits, vocab_mask=vocab_mask)


def register() -> None:
    """Makes sampler and masks known to SGLang, through its registries."""
    register_sampler_backend(BACKEND, HostSampler)
    for target in MASKS:
        HookRegistry.register(target, _apply_vocab_mask, HookType.AROUND)
    HookRegistry.apply_hooks()
