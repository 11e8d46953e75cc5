"""What a launch has to multiply and to read of the weights: the numerators of a roofline."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Weights:
    """How many numbers of a causal language model a token meets, without attention's keys and values.

    `shared` every token meets, `head` (the output matrix) only one whose logits are asked for; of the
    `routed` numbers, which are those of all experts, a token meets those of `active` among `experts`.
    """

    shared: int
    head: int
    routed: int = 0
    experts: int = 1
    active: int = 1

    @classmethod
    def of(cls, model: nn.Module) -> "Weights":
        """Of a model of transformers. An embedding is looked up, not multiplied with, unless it is the output
        matrix too. Experts' weights are those of three dimensions, the first of which counts them."""
        config = model.config.get_text_config()
        experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None) or 1
        active = getattr(config, "num_experts_per_tok", None) or experts
        head = model.get_output_embeddings().weight
        looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        body = [p for p in model.parameters() if p is not head and id(p) not in looked_up]
        routed = [p for p in body if experts > 1 and p.dim() == 3 and len(p) == experts]
        routed_size = sum(p.numel() for p in routed)
        shared = sum(p.numel() for p in body) - routed_size
        return cls(shared, head.numel(), routed_size, experts, min(active, experts))

    def work(self, tokens: int, itemsize: int) -> dict[str, float]:
        """`flop` and `bytes` of a launch with tokens of one sequence, whose last one's logits are asked for.

        `tokens` choose that many distinct experts in the mean, as if each chose evenly and independently;
        routers are less even, and read fewer.
        """
        share = self.active / self.experts
        distinct = 1 - (1 - share) ** tokens
        return {
            "flop": 2 * (tokens * (self.shared + self.routed * share) + self.head),
            "bytes": itemsize * (self.shared + self.routed * distinct + self.head),
        }
