"""SGLang's default loader with errors that name the weight, and one that loads nothing."""

from collections.abc import Iterable, Iterator

from opennpu.dialects.diagnostics import CompileError, Problem
from sglang.srt.model_loader.loader import DefaultModelLoader
from torch import Tensor, nn


class CheckedLoader(DefaultModelLoader):
    """Loads safetensors; every parameter must be filled, every weight must fit."""

    @staticmethod
    def load_weights_and_postprocess(model: nn.Module, weights: Iterable, target_device) -> None:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data.fill_(float("nan"))
        reader = _Reader(weights)
        try:
            DefaultModelLoader.load_weights_and_postprocess(model, reader, target_device)
        except (AssertionError, RuntimeError, ValueError, KeyError) as error:
            remedy = "config.json and the weights seem to belong to different models."
            what = f"weight {reader.name} of shape {list(reader.shape)} does not fit the model: {error}"
            raise CompileError(Problem(what.rstrip(": "), remedy=remedy)) from error
        _check_filled(model)


class ShapesOnlyLoader(DefaultModelLoader):
    """Builds the model on the given device, meta, and reads no weights."""

    def _get_all_weights(self, model_config, model):
        return ()

    @staticmethod
    def load_weights_and_postprocess(model: nn.Module, weights: Iterable, target_device) -> None:
        pass


class _Reader:
    """The weights of a checkpoint, remembering which one is at hand."""

    def __init__(self, weights: Iterable[tuple[str, Tensor]]):
        self._weights = weights
        self.name, self.shape = "(none)", ()

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            self.name, self.shape = name, tuple(tensor.shape)
            yield name, tensor


def _check_filled(model: nn.Module) -> None:
    """Each parameter was NaN before loading; what still is has no weight."""
    problems = []
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        empty = parameter.isnan().flatten(1).any(1) if parameter.dim() > 1 else parameter.isnan()
        if empty.any():
            rows = empty.nonzero()
            place = f"rows {int(rows[0])} to {int(rows[-1])} of {len(parameter)}"
            problems.append(Problem(f"no weight for {name}: {place}"))
    if problems:
        remedy = "The *.safetensors files are incomplete, or belong to another model."
        last = problems.pop()
        raise CompileError(*problems, Problem(last.what, remedy=remedy))
