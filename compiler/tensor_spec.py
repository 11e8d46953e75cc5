"""What an operator is compiled for, in place of a tensor; imports nothing of the compiler."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TensorSpec:
    """A tensor argument: sizes of the moment; strides in elements, None where row-major."""

    dtype: torch.dtype
    sizes: tuple[int, ...]
    strides: tuple[int, ...] | None = None
