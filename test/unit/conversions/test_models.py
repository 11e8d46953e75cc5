"""Whole models of plain torch.export against PyTorch: a perceptron, BERT, a vision transformer."""

import torch
from conversion_harness import check, converted
from torch.export import Dim
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

BATCH, LENGTH = Dim("B", min=1, max=64), Dim("S", min=1, max=512)
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)


class LastHidden(torch.nn.Module):
    """A transformers model as a function of tensors."""

    def __init__(self, model, *names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        return self.model(**dict(zip(self.names, inputs, strict=True))).last_hidden_state


def test_perceptron():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(20, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)]
    model = torch.nn.Sequential(*layers, torch.nn.Softmax(-1)).eval()
    check(model, [torch.randn(5, 20)], ({0: BATCH},), [[torch.randn(1, 20)]])


def test_bert():
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=100, **SIZES)).eval()
    model = LastHidden(model, "input_ids", "attention_mask")

    def inputs(batch, length):
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[0, length // 2 :] = 0
        return [torch.randint(0, 100, (batch, length)), mask]

    check(model, inputs(2, 16), (({0: BATCH, 1: LENGTH},) * 2,), [inputs(3, 7)], tolerance=1e-5)


def test_vit():
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES)).eval()
    model = LastHidden(model, "pixel_values")
    check(model, [torch.randn(2, 3, 32, 32)], (({0: BATCH},),), [[torch.randn(3, 3, 32, 32)]], tolerance=1e-5)


def test_masks_leave_nothing_to_gather():
    """The index arithmetic of transformers' masks folds away."""
    torch.manual_seed(0)
    model = LastHidden(BertModel(BertConfig(vocab_size=100, **SIZES)), "input_ids", "attention_mask")
    inputs = [torch.randint(0, 100, (2, 16)), torch.ones(2, 16, dtype=torch.long)]
    module, _ = converted(model, inputs, (({0: BATCH, 1: LENGTH},) * 2,))
    text = str(module)
    assert "npu.iota" not in text and text.count("npu.gather") == 3
