"""Models for plain torch.export, and the way from a module to a running program."""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from opennpu.tools import npu_compile
from torch import Tensor, nn


class Mlp(nn.Module):
    """Three layers, two activations; [batch, 40] → [batch, 10]."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(40, 96), nn.Linear(96, 65), nn.Linear(65, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(F.relu(self.first(x)))))


class VisionTransformer(nn.Module):
    """A vision transformer without convolutions: the patches are a reshape and a linear layer.

    [batch, 3, 24, 24] pictures → [batch, 7] scores of the classes.
    """

    PATCH, SIDE, WIDTH, LAYERS, CLASSES = 8, 3, 64, 2, 7

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3 * self.PATCH**2, self.WIDTH)
        self.class_token = nn.Parameter(torch.randn(1, 1, self.WIDTH))
        self.positions = nn.Parameter(torch.randn(1, 1 + self.SIDE**2, self.WIDTH))
        self.blocks = nn.Sequential(*(TransformerBlock(self.WIDTH) for _ in range(self.LAYERS)))
        self.norm, self.head = nn.LayerNorm(self.WIDTH), nn.Linear(self.WIDTH, self.CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        batch, side, patch = pictures.shape[0], self.SIDE, self.PATCH
        grid = pictures.reshape(batch, 3, side, patch, side, patch).permute(0, 2, 4, 3, 5, 1)
        tokens = self.embed(grid.reshape(batch, side**2, -1))
        tokens = torch.cat([self.class_token.expand(batch, -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


class TransformerBlock(nn.Module):
    """Pre-norm attention of four heads, then a GELU layer; [batch, tokens, width]."""

    HEADS = 4

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class BertEncoder(nn.Module):
    """transformers' BertModel with random weights; token ids and a mask → last hidden states."""

    def __init__(self):
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=131,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=144,
            max_position_embeddings=96,
            initializer_range=0.2,  # large enough that the tokens depend on the context
        )
        self.bert = BertModel(config, add_pooling_layer=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return found.last_hidden_state, found.pooler_output


class Compiled:
    """A module's program as `npu-compile` makes it, on devices of either engine."""

    def __init__(self, module: nn.Module, inputs: tuple, dynamic_shapes: tuple, directory: Path):
        self.path = directory / "model.npu"
        archive = directory / "model.pt"
        torch.export.save(
            torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes, strict=False), archive
        )
        assert npu_compile.main([str(archive), "-o", str(self.path)]) == 0
        self.programs: dict[tuple, Program] = {}

    def __call__(self, *inputs: Tensor, engine: str = "native", race_check: bool = False) -> list[Tensor]:
        """The outputs, in order."""
        key = (engine, race_check)
        if key not in self.programs:
            self.programs[key] = Program.load(Device(engine=engine, race_check=race_check), self.path)
        program = self.programs[key]
        names = program.signature.tensors("input")
        return list(program.run(dict(zip(names, inputs, strict=True))).values())


@torch.no_grad()
def in_dtype(module: nn.Module, dtype: torch.dtype, inputs: tuple) -> list[Tensor]:
    """What PyTorch computes in `dtype` from the module's weights; float inputs are cast too."""
    cast = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    outputs = copy.deepcopy(module).to(dtype)(*cast)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def relative_error(x: Tensor, exact: Tensor) -> float:
    """Of the whole tensor, in the 2-norm."""
    return float((x.double() - exact.double()).norm() / exact.double().norm())
