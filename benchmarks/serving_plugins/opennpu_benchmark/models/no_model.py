"""A model without work: what is left of a server's time is SGLang's."""

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from torch import nn


class NoModel(nn.Module):
    """Gives every sequence the same logits [vocabulary] in float32, whatever it is."""

    def __init__(self, config, quant_config=None, prefix: str = ""):
        super().__init__()
        self.config = config
        self.logits = nn.Parameter(torch.zeros(1, config.vocab_size), requires_grad=False)
        self.logits.data[:, config.vocab_size // 2] = 1  # a word: special tokens are not sent
        self.rows = None  # [sequences, vocabulary], made once

    def load_weights(self, weights) -> None:
        self.logits.data = self.logits.data.float()

    def forward(self, input_ids, positions, forward_batch, *args, **options) -> LogitsProcessorOutput:
        count = forward_batch.batch_size
        if self.rows is None or len(self.rows) < count:
            self.rows = self.logits.repeat(count, 1)
        return LogitsProcessorOutput(next_token_logits=self.rows[:count])


EntryClass = NoModel
