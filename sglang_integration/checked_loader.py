"""SGLang's default loader with errors that name the weight, and one that loads nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator

from opennpu.dialects.diagnostics import CompileError, Problem
from sglang.srt.model_loader.loader import DefaultModelLoader
from torch import Tensor, nn


class CheckedLoader(DefaultModelLoader):
    """Loads safetensors; every parameter must be filled, every weight must fit, no bias may be left over."""

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
        _check_biases(model, reader.biases)


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
        self.biases: dict[str, int] = {}  # name → elements

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._weights:
            self.name, self.shape = name, tuple(tensor.shape)
            if name.endswith(".bias"):
                self.biases[name] = tensor.numel()
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


def _check_biases(model: nn.Module, given: dict[str, int]) -> None:
    """SGLang's classes skip a bias that they have no parameter for, without a word.

    Some join the weights of several layers, so what is compared is the size of all biases
    in a block: those of q_proj, k_proj and v_proj with that of qkv_proj.
    """
    taken: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            taken[_block(name)] += parameter.numel()
    blocks: dict[str, list[str]] = {}
    for name in given:
        blocks.setdefault(_block(name), []).append(name)
    known = {name for name, _ in model.named_modules()}
    problems = [
        Problem(f"SGLang's {type(model).__name__} would ignore a bias among {', '.join(names)}")
        for block, names in blocks.items()
        if block in known and sum(given[name] for name in names) > taken[block]
    ]
    if problems:
        remedy = "This variant of the model is not supported: its results would be wrong."
        last = problems.pop()
        raise CompileError(*problems, Problem(last.what, remedy=remedy))


def _block(parameter: str) -> str:
    """model.layers.0.mlp of model.layers.0.mlp.up_proj.bias."""
    return parameter.rsplit(".", 2)[0]
