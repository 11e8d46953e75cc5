"""Transformers' models, unchanged, on the torch device: operator by operator and compiled."""

import pytest
import torch
import transformers
from opennpu.compiler import dynamo

DEVICE = "opennpu"
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
TEXT = dict(SIZES, vocab_size=128, max_position_embeddings=128)


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT, num_key_value_heads=2))


def qwen2():
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**TEXT, num_key_value_heads=2))


def bert():
    return transformers.BertModel(transformers.BertConfig(**TEXT))


def vit():
    return transformers.ViTModel(transformers.ViTConfig(**SIZES, image_size=32, patch_size=8))


MODELS = [llama, qwen2, bert, vit]
LANGUAGE_MODELS = [llama, qwen2]

TOLERANCE = {
    torch.float32: 1e-5,  # of the largest element: sums of up to 96 products in another order, twice a layer
    torch.bfloat16: 2**-6,  # four units in the last place: roundings that fall the other way
}

# What generate() itself does with token ids and masks: a few elements a step.
GENERATE_ON_HOST = {"aten::isin", "aten::cumsum", "aten::index_copy"}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    dynamo.clear_report()
    torch.opennpu.reset_fallbacks()
    torch.manual_seed(0)


def inputs(make, dtype) -> dict[str, torch.Tensor]:
    if make is vit:
        return {"pixel_values": torch.randn(2, 3, 32, 32).to(dtype)}
    return {"input_ids": torch.randint(0, TEXT["vocab_size"], (2, 11))}


def on_device(values):
    return {name: value.to(DEVICE) for name, value in values.items()}


def run(model, values) -> torch.Tensor:
    with torch.no_grad():
        return model(**values)[0].cpu()


def check(result, expected):
    error = (result.float() - expected.float()).abs().max() / expected.float().abs().max()
    assert result.dtype == expected.dtype
    assert error <= TOLERANCE[expected.dtype], f"relative to the largest element: {error}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", MODELS)
def test_forward(make, dtype):
    model, values = make().eval().to(dtype), inputs(make, dtype)
    expected = run(model, values)
    model, values = model.to(DEVICE), on_device(values)
    check(run(model, values), expected)
    check(run(torch.compile(model, backend="opennpu", options={"strict": True}), values), expected)
    assert torch.opennpu.fallbacks() == {}
    assert [len(graph.parts) for graph in dynamo.report()] == [1], "the model is one program"


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("make", LANGUAGE_MODELS)
def test_generate(make, cache):
    """In f32, where no two candidates for a token are closer than the error."""
    model, values = make().eval(), inputs(make, torch.float32)
    values["attention_mask"] = torch.ones_like(values["input_ids"])
    expected = generate(model, values, cache)
    model, values = model.to(DEVICE), on_device(values)
    assert torch.equal(generate(model, values, cache), expected)
    model.forward = torch.compile(model.forward, backend="opennpu")
    assert torch.equal(generate(model, values, cache), expected)
    assert set(torch.opennpu.fallbacks()) <= GENERATE_ON_HOST
    assert not [eager for graph in dynamo.report() for eager in graph.eager if eager.costs]


def generate(model, values, cache) -> torch.Tensor:
    options = {"max_new_tokens": 4, "do_sample": False, "disable_compile": True, "pad_token_id": 0}
    with torch.no_grad():
        return model.generate(**values, **options, cache_implementation=cache).cpu()
