"""Trace a loaded SGLang model into a program with symbolic token, sequence and page counts."""

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

SYMBOLS = {"T": (1, 8192), "B": (1, 1024), "P": (1, 65536), "R": (1, 8192)}
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
    facts = _model_facts(model)
    _make_language_program(model)
    fused_ops.resolve(model)
    dims = {name: Dim(name, min=low, max=high) for name, (low, high) in SYMBOLS.items()}
    dims["B + 1"] = dims["B"] + 1
    shapes = {
        name: {i: dims[extent] for i, extent in enumerate(extents)} for name, (_, extents) in INPUTS.items()
    }
    with torch.no_grad():
        program = torch.export.export(
            model, (), kwargs=_example_inputs(model), dynamic_shapes=shapes, strict=False
        )
    metadata = {
        "dims": {name: extents for name, (_, extents) in INPUTS.items()},
        "outputs": ["logits"],
        "model": facts,
    }
    return Archive(program, metadata)


class LanguageProgram:
    """Mixed into the model's own class, so that names of modules and weights stay its own."""

    def forward(
        self, input_ids, positions, slot_mapping, block_table, seq_lens, q_start, logits_rows
    ) -> Tensor:
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
        attention = PagedAttention(slot_mapping, block_table, seq_lens, q_start)
        with forward_context(ForwardContext(attn_backend=attention), forward_batch=batch):
            return super().forward(input_ids, positions, batch)


class SelectedLogits(nn.Module):
    """In the place of SGLang's LogitsProcessor: logits of chosen rows, in float32."""

    def __init__(self, processor: nn.Module):
        super().__init__()
        self.scale = processor.logit_scale
        self.cap = processor.final_logit_softcapping

    def forward(self, input_ids, hidden_states, lm_head, batch, *_args, **_kwargs) -> Tensor:
        hidden = hidden_states.index_select(0, batch.logits_rows)
        logits = F.linear(hidden, lm_head.weight, getattr(lm_head, "bias", None)).float()
        if self.scale is not None:
            logits = logits * self.scale
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        return logits


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


def _make_language_program(model: nn.Module) -> None:
    if not hasattr(model, "logits_processor"):
        what = f"{type(model).__name__} is not a language model: it computes no logits"
        raise CompileError(Problem(what, remedy="Export it with torch.export.export and torch.export.save."))
    model.logits_processor = SelectedLogits(model.logits_processor)
    # SGLang pads the vocabulary; the tokens and logits beyond it do not exist.
    head = _output_layer(model)
    for parameter in (head.weight, getattr(head, "bias", None)):
        if parameter is not None:
            parameter.data = parameter.data[: model.config.vocab_size]
    model.__class__ = type(type(model).__name__, (LanguageProgram, type(model)), {})


def _output_layer(model: nn.Module) -> nn.Module:
    """Where a class ties its embeddings always, such as Gemma's, it has no lm_head."""
    return model.lm_head if hasattr(model, "lm_head") else model.model.embed_tokens


def _example_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Any sizes that differ from each other and from 1."""
    sizes = {"T": 6, "B": 3, "P": 4, "B + 1": 4, "R": 5}
    device = _output_layer(model).weight.device
    return {
        name: torch.zeros([sizes[extent] for extent in extents], dtype=dtype, device=device)
        for name, (dtype, extents) in INPUTS.items()
    }


def _model_facts(model: nn.Module) -> dict:
    config = model.config
    eos = config.eos_token_id
    return {
        "architecture": type(model).__name__,
        "config": config.to_dict(),
        "vocab_size": config.vocab_size,
        "eos_token_ids": eos if isinstance(eos, list) else [eos],
        "context_length": config.max_position_embeddings,
        "dtype": str(_output_layer(model).weight.dtype).removeprefix("torch."),
    }
