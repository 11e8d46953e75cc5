"""The weights of a compiled model: the program's packed segment on the chip, SGLang's own on the host."""

import logging

import torch
from opennpu.compiler.weights import check_weights, pieces
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.signature import Signature
from opennpu.sglang_integration import export
from opennpu.sglang_integration.memory import too_small
from torch import Tensor, nn

logger = logging.getLogger("sglang.opennpu")


class Weights:
    """`packed` is the segment in chip memory, uint8.

    SGLang's parameters wait on the host, but for those of the output layer, by which its LogitsProcessor
    scores prompts. `restore` brings them back for what runs operator by operator.
    """

    def __init__(self, model: nn.Module, signature: Signature):
        self._model, self._device = model, next(model.parameters()).device
        kept = {id(parameter) for parameter in export.output_layer(model).parameters()}
        self._waiting = [name for name, p in model.named_parameters() if id(p) not in kept]
        self._move("cpu")  # first: the chip need not hold both
        torch.opennpu.empty_cache()
        self.packed = _pack(model, signature, self._device)

    def restore(self) -> None:
        """SGLang's parameters on the chip again, where they stay. Raises torch.OutOfMemoryError."""
        if not self._waiting:
            return
        megabytes = sum(self._model.get_parameter(name).nbytes for name in self._waiting) / 1e6
        logger.warning("%.0f MB of weights go to the chip once more, for what is not compiled", megabytes)
        try:
            self._move(self._device)
        except torch.OutOfMemoryError as error:
            raise torch.OutOfMemoryError(
                f"what is not compiled needs {megabytes:.0f} MB of weights beside the program's: "
                f"lower --mem-fraction-static, or serve with OPENNPU_EAGER=1 ({error})"
            ) from error
        self._waiting = []

    def _move(self, device: torch.device | str) -> None:
        """Replaces the parameters in all modules: the device of a parameter's `data` cannot be changed."""
        moved = {id(p): _on(p, device) for p in map(self._model.get_parameter, self._waiting)}
        for module in self._model.modules():
            for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if id(parameter) in moved:
                    setattr(module, name, moved[id(parameter)])


def _on(parameter: nn.Parameter, device: torch.device | str) -> nn.Parameter:
    moved = nn.Parameter(parameter.data.to(device), requires_grad=parameter.requires_grad)
    moved.__class__ = type(parameter)  # SGLang's own, with its loaders as attributes
    moved.__dict__.update(parameter.__dict__)
    return moved


def _pack(model: nn.Module, signature: Signature, device: torch.device) -> Tensor:
    """Raises MemoryError."""
    values = export.served_tensors(model)
    for name, (dtype, constant) in signature.model["constants"].items():
        values[name] = torch.tensor(constant, dtype=DTYPES[dtype])
    check_weights(signature.weights, values)
    logger.info("packing %.0f MB of weights into chip memory", signature.weight_bytes / 1e6)
    try:
        memory = torch.empty(signature.weight_bytes, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        kept = {t.data_ptr(): t.nbytes for t in values.values() if t.device == device}
        needed = sum(kept.values()) + signature.weight_bytes
        raise MemoryError(too_small("the packed weights and the output layer's", needed)) from error
    for offset, piece in pieces(signature.weights, values, signature.chip):
        memory[offset : offset + len(piece)].copy_(torch.frombuffer(bytearray(piece), dtype=torch.uint8))
    return memory
