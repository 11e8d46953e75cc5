"""Trace a loaded SGLang model into a program with symbolic token, sequence and page counts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from opennpu.compiler.frontend import ops
from opennpu.compiler.frontend.archive import Archive
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.sglang_integration import fused_ops
from sglang.srt.model_executor.forward_batch_info import ForwardBatch, ForwardMode
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
from torch import Tensor, nn
from torch.export import Dim

SYMBOLS = {"T": (1, 1 << 20), "B": (1, 1 << 16), "P": (1, 1 << 16), "R": (1, 1 << 20)}
"""Ranges of a launch's tokens, sequences, pages of the longest sequence, and rows with logits."""

INPUTS = {
    "input_ids": (torch.int64, ["T"]),
    "positions": (torch.int64, ["T"]),
    "slot_mapping": (torch.int64, ["T"]),
    "block_table": (torch.int32, ["B", "P"]),
    "seq_lens": (torch.int64, ["B"]),
    "q_start": (torch.int64, ["B + 1"]),
    "logits_rows": (torch.int64, ["R"]),
}
"""Of a language program, in order; `ops.paged_attention` says what they mean."""


def export_model(model: nn.Module) -> Archive:
    """The archive of a model from `load_model`. Changes the model. Raises CompileError.

    Its program maps INPUTS to `logits` [R, vocabulary] in float32, those of the rows
    logits_rows of the tokens.
    """
    facts = model_facts(model)
    check_language_model(model)
    model.logits_processor = SelectedLogits(model.logits_processor)
    for parameter, used in _without_padding(model):
        parameter.data = used
    model.__class__ = type(type(model).__name__, (LanguageProgram, type(model)), {})
    return _trace(model, model, ["logits"], facts)


@contextmanager
def served_archive(model: nn.Module) -> Iterator[Archive]:
    """The archive of a model that SGLang serves, which is as before after the block. Raises CompileError.

    As `export_model`, with one more output, `hidden_states` [T, hidden size]: what the model gives to its
    LogitsProcessor. The names of weights are those of `served_tensors`. Lower it inside the block:
    the weights are without padding there.
    """
    facts, processor = model_facts(model), model.logits_processor
    padded = [(parameter, parameter.data, used) for parameter, used in _without_padding(model)]
    try:
        model.logits_processor = SelectedLogits(processor, keep_hidden=True)
        for parameter, _, used in padded:
            parameter.data = used
        yield _trace(ServedProgram(model), model, ["logits", "hidden_states"], facts)
    finally:
        model.logits_processor = processor
        for parameter, whole, _ in padded:
            parameter.data = whole


def served_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a served model by the names that `served_archive` gives them."""
    program = ServedProgram(model)
    used = {id(parameter): rows for parameter, rows in _without_padding(model)}
    named = program.named_parameters(remove_duplicate=False)
    tensors = {name: used.get(id(parameter), parameter.data) for name, parameter in named}
    return tensors | dict(program.named_buffers(remove_duplicate=False))


def _trace(program: nn.Module, model: nn.Module, outputs: list[str], facts: dict) -> Archive:
    fused_ops.resolve(model)
    dims = {name: Dim(name, min=low, max=high) for name, (low, high) in SYMBOLS.items()}
    dims["B + 1"] = dims["B"] + 1
    shapes = {
        name: {i: dims[extent] for i, extent in enumerate(extents)} for name, (_, extents) in INPUTS.items()
    }
    with torch.no_grad():
        exported = torch.export.export(
            program, (), kwargs=_example_inputs(model), dynamic_shapes=shapes, strict=False
        )
    metadata = {
        "dims": {name: extents for name, (_, extents) in INPUTS.items()},
        "outputs": outputs,
        "model": facts,
    }
    return Archive(exported, metadata)


class LanguageProgram:
    """Mixed into the model's own class, so that names of modules and weights stay its own."""

    def forward(
        self, input_ids, positions, slot_mapping, block_table, seq_lens, q_start, logits_rows
    ) -> Tensor:
        paging = slot_mapping, block_table, seq_lens, q_start
        return _run(super().forward, input_ids, positions, paging, logits_rows)


class ServedProgram(nn.Module):
    """Around a model that is served, whose own forward stays as it is."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, positions, slot_mapping, block_table, seq_lens, q_start, logits_rows):
        paging = slot_mapping, block_table, seq_lens, q_start
        return _run(self.model.forward, input_ids, positions, paging, logits_rows)


def _run(forward, input_ids, positions, paging, logits_rows):
    slot_mapping, _, seq_lens, _ = paging
    batch = ForwardBatch(
        forward_mode=ForwardMode.EXTEND,
        batch_size=seq_lens.shape[0],
        input_ids=input_ids,
        req_pool_indices=None,
        seq_lens=seq_lens,
        seq_lens_sum=None,
        out_cache_loc=slot_mapping,
    )
    batch.positions = positions
    batch.logits_rows = logits_rows
    with forward_context(ForwardContext(attn_backend=PagedAttention(*paging)), forward_batch=batch):
        return forward(input_ids, positions, batch)


class SelectedLogits(nn.Module):
    """In the place of SGLang's LogitsProcessor: logits of chosen rows, in float32; and what it was given."""

    def __init__(self, processor: nn.Module, keep_hidden: bool = False):
        super().__init__()
        self.keep_hidden = keep_hidden
        self.scale = processor.logit_scale
        self.cap = processor.final_logit_softcapping

    def forward(self, input_ids, hidden_states, lm_head, batch, *_args, **_kwargs):
        hidden = hidden_states.index_select(0, batch.logits_rows)
        logits = F.linear(hidden, lm_head.weight, getattr(lm_head, "bias", None)).float()
        if self.scale is not None:
            logits = logits * self.scale
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        return (logits, hidden_states) if self.keep_hidden else logits


class PagedAttention:
    """What SGLang's attention layers see as their backend during the trace."""

    token_to_kv_pool = None  # some models look for it before they ask whether they may write there

    def __init__(self, *paging: Tensor):
        self.paging = paging

    def forward(self, q, k, v, layer, forward_batch, save_kv_cache=True, **options) -> Tensor:
        if k is None or v is None or not save_kv_cache or layer.is_cross_attention:
            raise _unsupported(layer, "attends to keys and values that it does not write")
        if any(option is not None for option in options.values()):
            raise _unsupported(layer, f"uses {', '.join(options)}")
        heads, kv_heads = layer.tp_q_head_num, layer.tp_k_head_num
        return ops.paged_attention(
            q.reshape(-1, heads * layer.qk_head_dim),
            k.reshape(-1, kv_heads * layer.qk_head_dim),
            v.reshape(-1, kv_heads * layer.v_head_dim),
            *self.paging,
            layer=layer.layer_id,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=layer.qk_head_dim,
            v_head_dim=layer.v_head_dim,
            scale=float(layer.scaling),
            logit_cap=float(layer.logit_cap or 0),
            window=layer.sliding_window_size + 1,  # SGLang's excludes the query's own token
        )


def _unsupported(layer: nn.Module, what: str) -> CompileError:
    return CompileError(Problem(f"attention layer {layer.layer_id} {what}, which is not supported"))


def check_language_model(model: nn.Module) -> None:
    if not hasattr(model, "logits_processor"):
        what = f"{type(model).__name__} is not a language model: it computes no logits"
        raise CompileError(Problem(what, remedy="Export it with torch.export.export and torch.export.save."))
    if getattr(model, "is_mrope_enabled", False):
        what = f"{type(model).__name__} takes positions of pictures, in three dimensions (M-RoPE)"
        raise CompileError(Problem(what, remedy="A program takes text: export a language model alone."))


def _without_padding(model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
    """SGLang pads the vocabulary; the tokens and logits beyond it do not exist: (parameter, rows that do)."""
    head = output_layer(model)
    parameters = (head.weight, getattr(head, "bias", None))
    return [(p, p.data[: model.config.vocab_size]) for p in parameters if p is not None]


def output_layer(model: nn.Module) -> nn.Module:
    """Where a class ties its embeddings always, such as Gemma's, it has no lm_head."""
    return model.lm_head if hasattr(model, "lm_head") else model.model.embed_tokens


def _example_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Any sizes that differ from each other and from 1."""
    sizes = {"T": 6, "B": 3, "P": 4, "B + 1": 4, "R": 5}
    device = output_layer(model).weight.device
    return {
        name: torch.zeros([sizes[extent] for extent in extents], dtype=dtype, device=device)
        for name, (dtype, extents) in INPUTS.items()
    }


def model_facts(model: nn.Module) -> dict:
    config = model.config
    eos = config.eos_token_id
    return {
        "architecture": type(model).__name__,
        "config": config.to_dict(),
        "vocab_size": config.vocab_size,
        "eos_token_ids": eos if isinstance(eos, list) else [eos],
        "context_length": config.max_position_embeddings,
        "dtype": str(output_layer(model).weight.dtype).removeprefix("torch."),
    }
