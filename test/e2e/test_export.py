"""npu-export: SGLang's models as programs, run on the host next to transformers."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from opennpu.compiler.frontend import ops
from opennpu.compiler.frontend.archive import load_archive
from opennpu.runtime.language_model import CachedSequence, Chunk, KvPoolError, LanguageModel
from opennpu.runtime.signature import KvSpec
from opennpu.tools import npu_export
from safetensors.torch import load_file, save_file
from tiny_models import run_tool
from transformers import AutoModelForCausalLM

PAGE_SIZE = 4
FP32_NOISE = {"rtol": 1e-4, "atol": 1e-3}  # sums in another order; logits are of the order 10


class HostPool:
    """The pool's interface, handing out scattered pages."""

    page_size = PAGE_SIZE

    def __init__(self, pages: int):
        self.pages = pages
        self.free = [int(p) for p in torch.randperm(pages, generator=torch.Generator().manual_seed(0))]

    @property
    def free_pages(self) -> int:
        return len(self.free)

    def alloc(self, count: int) -> list[int]:
        taken, self.free = self.free[:count], self.free[count:]
        return taken

    def release(self, pages: list[int]) -> None:
        self.free += pages


class HostProgram:
    """An exported program in the place of a compiled one: PyTorch runs it."""

    def __init__(self, archive):
        self.module = archive.program.module()
        self.store = ops.KvStore(PAGE_SIZE, slots=64 * PAGE_SIZE)
        self.signature = SimpleNamespace(
            kv=KvSpec(layers=2, kv_heads=2, head_dim=16, v_head_dim=16, dtype="f32"),
            symbols={"T": (1, 24)},
            model=archive.metadata["model"],
            tensors=lambda kind: archive.metadata["dims"],
        )

    def run(self, inputs, kv):
        with ops.kv_store(self.store), torch.no_grad():
            return {"logits": self.module(**inputs)}


@pytest.fixture(params=["tiny_llama", "tiny_qwen3"])
def model_dir(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def reference(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


@pytest.fixture
def model(model_dir, exported):
    return LanguageModel(HostProgram(load_archive(exported(model_dir))), HostPool(pages=32))


def tokens_of(length: int, seed: int) -> list[int]:
    return torch.randint(2, 261, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def test_mixed_batches_match_transformers(model, reference):
    """Pieces of prompts and single tokens of three sequences in the same launches."""
    texts = [tokens_of(n, seed) for seed, n in enumerate((11, 7, 9))]
    sequences = [CachedSequence() for _ in texts]
    parts = [[] for _ in texts]
    for sizes in ((5, 1, 3), (5, 1, 1), (1, 5, 5)):
        chunks = [
            Chunk(s, text[s.length : s.length + n], logits=n)
            for s, text, n in zip(sequences, texts, sizes, strict=True)
        ]
        for part, logits in zip(parts, model.forward(chunks), strict=True):
            part.append(logits)
    for text, part in zip(texts, parts, strict=True):
        torch.testing.assert_close(torch.cat(part), reference(torch.tensor([text])).logits[0], **FP32_NOISE)


@torch.no_grad()
def test_generation_matches_transformers(model, reference):
    """A prompt longer than one launch takes, then single tokens: T = B = R = 1."""
    prompt = tokens_of(40, seed=3)
    expected = reference.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, 40:].tolist()
    found = list(model.generate(prompt, max_new_tokens=12))
    assert found == [t for t in expected if t != 1]
    assert model.pool.free_pages == model.pool.pages


def test_pool_too_small_changes_nothing(model):
    sequence = CachedSequence()
    model.prefill(sequence, tokens_of(10, seed=4))
    with pytest.raises(KvPoolError, match=r"30 more pages of 4 tokens .* 29 of its 32 are free"):
        model.forward([Chunk(sequence, tokens_of(120, seed=5))])
    assert (sequence.length, len(sequence.pages)) == (10, 3)


def test_names_of_weights_are_the_models_own(model_dir, exported):
    archive = load_archive(exported(model_dir))
    names = set(archive.program.graph_signature.parameters)
    assert "model.layers.1.self_attn.qkv_proj.weight" in names
    assert archive.metadata["model"]["vocab_size"] == 261
    assert archive.metadata["model"]["eos_token_ids"] == [1]


def test_dummy_weights_take_no_memory(tiny_llama, tmp_path):
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    result = run_tool("npu_export", tmp_path, "-o", tmp_path / "model.pt", "--dummy-weights")
    assert result.returncode == 0, result.stderr
    program = load_archive(tmp_path / "model.pt").program
    assert all(tensor.is_meta for tensor in program.state_dict.values())


# ---- errors


@pytest.fixture
def export_error(tmp_path, capsys):
    """export_error(model_dir) is what npu-export says; in_process where SGLang is not reached."""

    def run(model_dir, in_process=False) -> str:
        arguments = [str(model_dir), "-o", str(tmp_path / "model.pt")]
        if in_process:
            assert npu_export.main(arguments) == 1
            return capsys.readouterr().err
        result = run_tool("npu_export", *arguments)
        assert result.returncode == 1, result.stdout
        assert "Traceback" not in result.stderr, result.stderr
        return result.stderr

    return run


@pytest.fixture
def broken(tiny_llama, tmp_path):
    """A copy of a model directory; edit(name, change) replaces a weight, or drops it for None."""
    directory = tmp_path / "broken"
    shutil.copytree(tiny_llama, directory)

    def edit(name, change):
        weights = load_file(directory / "model.safetensors")
        weights[name] = change(weights[name])
        kept = {k: v for k, v in weights.items() if v is not None}
        save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})

    return SimpleNamespace(directory=directory, edit=edit)


def test_not_a_model_directory(tmp_path, export_error):
    assert "has no config.json" in export_error(tmp_path, in_process=True)
    assert "is not a directory" in export_error(tmp_path / "nothing", in_process=True)
    (tmp_path / "config.json").write_text("{}")
    assert "--dummy-weights" in export_error(tmp_path, in_process=True)


def test_unsupported_architecture(broken, export_error):
    config = json.loads((broken.directory / "config.json").read_text())
    (broken.directory / "config.json").write_text(json.dumps({**config, "architectures": ["Nonesuch"]}))
    error = export_error(broken.directory)
    assert "SGLang has no model class for Nonesuch" in error
    assert "LlamaForCausalLM" in error


def test_missing_weight(broken, export_error):
    broken.edit("model.layers.1.self_attn.k_proj.weight", lambda w: None)
    error = export_error(broken.directory)
    assert "no weight for model.layers.1.self_attn.qkv_proj.weight: rows 64 to 95 of 128" in error


def test_weight_of_the_wrong_shape(broken, export_error):
    name = "model.layers.0.mlp.down_proj.weight"
    broken.edit(name, lambda w: w[:, :50].contiguous())
    error = export_error(broken.directory, in_process=True)
    assert f"weight {name} has the shape [64, 50] instead of [64, 96]" in error


def test_damaged_weights(broken, export_error):
    (broken.directory / "model.safetensors").write_bytes(b"nothing")
    assert "is not a safetensors file" in export_error(broken.directory, in_process=True)
