"""Where a kernel has several tilings that fit: which of them it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opennpu.compiler.kernels.matmul_tiling import BlockTiling


@dataclass
class Choices:
    """A number of a tiling for some products, by what they compute; any other takes the first.

    offered: of each product the tilings, best guess first; known once the program has been compiled.
    """

    made: Mapping[str, int] = field(default_factory=dict)
    offered: dict[str, Sequence[BlockTiling]] = field(default_factory=dict)

    def choose(self, product: str, tilings: Sequence[BlockTiling]) -> BlockTiling:
        self.offered[product] = tilings
        return tilings[self.made.get(product, 0)]
