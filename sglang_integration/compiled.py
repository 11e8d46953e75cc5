"""Compiled-graph mode: the forward of a model that SGLang has loaded becomes the launch of one program."""

import functools
import hashlib
import logging
import time
from collections import Counter
from importlib import metadata
from pathlib import Path

import torch
from opennpu.compiler.cache import Cache, key_of
from opennpu.compiler.frontend.archive import Archive, tensors
from opennpu.compiler.paused_gc import paused_gc
from opennpu.dialects.diagnostics import CompileError, Problem
from opennpu.runtime.container import Container
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.settings import settings
from opennpu.runtime.torch_device.operators import load_language_model
from opennpu.sglang_integration import export
from opennpu.sglang_integration.weights import Weights
from sglang.srt.layers.logits_processor import LogitsProcessor, LogitsProcessorOutput
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.forward_context import get_attn_backend
from torch import Tensor, nn

logger = logging.getLogger("sglang.opennpu")

MODES = (ForwardMode.EXTEND, ForwardMode.DECODE, ForwardMode.MIXED)
"""Batches that the program runs: prompts and pieces of them, single tokens, both together."""

TRACERS = ("compiled.py", "export.py", "fused_ops.py")
"""Files of this package that decide what a cached program holds."""


NO_UPDATES = (
    "the device opennpu serves weights that were packed when the server started: they cannot be updated. "
    "Start the server with the new weights; OPENNPU_EAGER=1 takes updates, operator by operator"
)
"""SGLang tells this to those who ask for an update of weights, where it finds it on a model."""


def install(model: nn.Module) -> None:
    """Replaces the model's forward; where it cannot be compiled it stays: told, or an error when strict."""
    _compute_caps_in_torch(model)
    if settings().eager:
        logger.info("OPENNPU_EAGER=1: the model runs operator by operator")
        return
    try:
        model.forward = CompiledForward(model)
        model._derived_weight_cache_error = NO_UPDATES
    except CompileError as error:
        if settings().strict:
            raise
        logger.warning("the model runs operator by operator, as it cannot be compiled: %s", error)


class CompiledForward:
    """In the place of `model.forward`; runs that where the program does not cover a batch.

    launches: by the batch's mode; fallbacks: by reason. Raises CompileError.
    """

    def __init__(self, model: nn.Module):
        functools.update_wrapper(self, model.forward)  # SGLang asks which parameters it has
        self._model, self._eager = model, model.forward
        self.launches: Counter[str] = Counter()
        self.fallbacks: Counter[str] = Counter()
        self.device = next(model.parameters()).device
        start = time.perf_counter()
        container, found = compiled(model)
        self.program, self.signature = container.path, container.signature
        self._launch = load_language_model(container, self.device.index, list(export.INPUTS))
        self._weights = Weights(model, self.signature)
        logger.info(
            "the model is one program of %d kernels (%s) with %.0f MB of packed weights, ready after %.1f s",
            len(self.signature.report),
            "from the compile cache" if found else "compiled now",
            self.signature.weight_bytes / 1e6,
            time.perf_counter() - start,
        )

    def __call__(self, input_ids, positions, forward_batch, *args, **options):
        reason = self._not_covered(input_ids, forward_batch, [*args, *options.values()])
        if reason is not None:
            self._count_fallback(reason)
            self._weights.restore()
            return self._eager(input_ids, positions, forward_batch, *args, **options)
        self.launches[forward_batch.forward_mode.name] += 1
        logits, hidden_states = self._run(input_ids, positions)
        if not wants_more_than_logits(forward_batch):
            return LogitsProcessorOutput(next_token_logits=logits)
        head = export.output_layer(self._model)
        output = self._model.logits_processor(input_ids, hidden_states, head, forward_batch)
        if not scores_without_sampling(forward_batch):
            # The processor's are rounded otherwise: a token would depend on what its batch asks for.
            output.next_token_logits = logits
        return output

    def _run(self, input_ids: Tensor, positions: Tensor) -> list[Tensor]:
        """The logits of each sequence's last token [B, vocabulary], and the hidden states [T, hidden]."""
        attention = get_attn_backend()
        paging = attention.paging
        inputs = {
            "input_ids": input_ids.to(torch.int64),
            "positions": positions.to(torch.int64),
            "slot_mapping": paging.slot_mapping,
            "block_table": paging.block_table,
            "seq_lens": paging.seq_lens,
            "q_start": paging.q_start,
            "logits_rows": paging.last_rows,
        }
        pages = attention.token_to_kv_pool.pages
        return self._launch([*(inputs[name] for name in export.INPUTS), *pages, self._weights.packed])

    def _not_covered(self, input_ids: Tensor, forward_batch, further: list) -> str | None:
        most = self.signature.symbols["T"][1]
        if forward_batch.forward_mode not in MODES:
            return f"batches of the mode {forward_batch.forward_mode.name}"
        if any(value is not None and value is not False for value in further):
            return "embeddings as input or output, or a pipeline of several chips"
        if len(input_ids) > most:
            return f"more than {most} tokens at once: lower --chunked-prefill-size"
        return None

    def _count_fallback(self, reason: str) -> None:
        if settings().strict:
            raise CompileError(Problem(f"OPENNPU_STRICT=1: not in the compiled program: {reason}"))
        if not self.fallbacks[reason]:
            logger.warning("runs operator by operator: %s", reason)
        self.fallbacks[reason] += 1


def wants_more_than_logits(forward_batch) -> bool:
    """Whether SGLang's LogitsProcessor has more to do than the logits of each sequence's last token."""
    if forward_batch.capture_hidden_mode.need_capture():
        return True
    if not forward_batch.forward_mode.is_extend():
        return False
    if scores_without_sampling(forward_batch):
        return True
    lengths, starts = forward_batch.extend_seq_lens_cpu, forward_batch.extend_logprob_start_lens_cpu
    return forward_batch.return_logprob and any(n > start for n, start in zip(lengths, starts, strict=True))


def scores_without_sampling(forward_batch) -> bool:
    """Whether the batch asks for scores at places inside of prompts, after which nothing is sampled."""
    places = (forward_batch.multi_item_delimiter_indices, forward_batch.token_indices_to_pool)
    return any(value is not None for value in places)


class CappedLogits(LogitsProcessor):
    """SGLang caps logits by a Triton kernel on every device but two; this does it in PyTorch."""

    def _get_logits(self, *args, **options) -> Tensor:
        cap, self.final_logit_softcapping = self.final_logit_softcapping, None
        try:
            logits = super()._get_logits(*args, **options)
        finally:
            self.final_logit_softcapping = cap
        return cap * torch.tanh(logits / cap)


def _compute_caps_in_torch(model: nn.Module) -> None:
    processor = getattr(model, "logits_processor", None)
    if type(processor) is LogitsProcessor and processor.final_logit_softcapping:
        processor.__class__ = CappedLogits


# ---- the program


def compiled(model: nn.Module) -> tuple[Container, bool]:
    """The program of a model, and whether the compile cache had it. Raises CompileError."""
    export.check_language_model(model)
    chip, found = settings().load_chip(), True

    def build(path: Path) -> None:
        nonlocal found
        found = False
        logger.info("compiling %s for %s; the program is cached", type(model).__name__, chip.name)
        from opennpu.compiler.container import write_model
        from opennpu.compiler.pipeline import Compilation

        run = Compilation(chip)
        with paused_gc(), export.served_archive(model) as archive:
            facts = archive.metadata["model"] | {"constants": _constants(archive, model)}
            program, signature = run.assemble(run.lower(archive))
        write_model(path, program, signature | {"model": facts}, weights=None)

    path = Cache().get_or_build(key_of(_identity(model), chip.canonical_json()), build)
    return Container.open(path), found


def _identity(model: nn.Module) -> dict:
    """All that a program depends on beside chip and compiler, so that a known one needs no export."""
    here = Path(__file__).parent
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "model": export.model_facts(model),
        "tensors": {name: [list(t.shape), str(t.dtype)] for name, t in export.served_tensors(model).items()},
        "sglang": metadata.version("sglang"),
        "tracers": [hashlib.sha256((here / name).read_bytes()).hexdigest() for name in TRACERS],
    }


def _constants(archive: Archive, model: nn.Module) -> dict[str, tuple[str, list | float]]:
    """Tensors that the model's forward itself makes, as (dtype, values) by name."""
    known, names = export.served_tensors(model), {dtype: name for name, dtype in DTYPES.items()}
    made = {name: tensor for name, tensor in tensors(archive.program).items() if name not in known}
    return {name: (names[tensor.dtype], tensor.tolist()) for name, tensor in made.items()}
