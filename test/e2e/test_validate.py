"""npu-validate: sound models hold every bound, and what is broken is named where it is broken."""

import json
import re
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch
from opennpu.compiler.frontend.archive import load_archive, save_archive
from opennpu.compiler.interpreters import table
from opennpu.compiler.passes import capture
from opennpu.compiler.rewriting import functions
from opennpu.dialects import npu
from opennpu.tools import npu_validate
from opennpu.tools.baseline.digest import digest, perplexity
from opennpu.tools.validation import layer_level, model_level, op_cases, op_random
from opennpu.tools.validation.op_random import MAKERS, Maker
from opennpu.tools.validation.subject import Subject, ValidationError
from tiny_models import run_tool
from torch_mlir import ir

TOKENS = torch.randint(2, 261, (24,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.fixture(scope="module")
def bf16(tiny_llama, tmp_path_factory) -> Subject:
    """A Llama of two layers in bfloat16, exported."""
    folder = tmp_path_factory.mktemp("validate")
    subject = Subject(tiny_llama, folder)
    result = run_tool("npu_export", tiny_llama, "-o", subject.archive_file)
    assert result.returncode == 0, result.stderr
    return subject


@pytest.fixture
def fp32(tiny_model, exported, tmp_path):
    """fp32(name of MODELS) is that model in float32, exported."""

    def subject(name: str) -> Subject:
        directory = tiny_model(name)
        made = Subject(directory, tmp_path, "fp32")
        made.archive_file.symlink_to(exported(directory))
        return made

    return subject


# ---- layers


@pytest.mark.parametrize("select", capture.SELECT)
def test_captures_change_no_bit(bf16, tmp_path, select):
    bf16.compile(tmp_path / "captured.npu", lambda module: capture.run(module, select))
    outputs, _ = bf16.load(tmp_path / "captured.npu").outputs(TOKENS)
    assert len(outputs) > 2
    assert torch.equal(outputs["logits"], bf16.load().logits(TOKENS))


@pytest.mark.parametrize("ops", [False, True])
def test_a_sound_model_holds_its_bounds(bf16, ops):
    level = layer_level.validate(bf16, TOKENS, ops)
    assert level.holds and level.data["first"] is None
    titles = [row["title"] for row in level.data["rows"]]
    if ops:
        assert {"model.layers.1.mlp.down_proj#0", "model.layers.0.self_attn.attn#0"} <= set(titles)
    else:
        assert titles == ["layer 0", "layer 1", "logits"]
    assert all(row["rounded"] > 0 for row in level.data["rows"] if row["title"].startswith("layer"))


def test_what_is_not_compared_is_named(bf16):
    level = layer_level.validate(bf16, TOKENS, ops=True)
    compared, skipped = level.data["compared"], level.data["skipped"]
    assert compared["of"] - compared["results"] == len(skipped) > 0
    assert {"model.norm#1"} < {s["name"] for s in skipped}  # the sum behind the last layer: nobody reads it
    assert all(s["reason"] for s in skipped)
    assert f"compared {compared['results']} of {compared['of']} results" in level.lines


@pytest.mark.parametrize("name", ["gemma2", "mixtral"])
def test_every_op_of_other_families_finds_its_reference(fp32, name):
    """In float32 a value beside another one than its own would be off by all of it."""
    level = layer_level.validate(fp32(name), TOKENS, ops=True)
    assert level.holds, level.lines
    assert len(level.data["rows"]) > 12


def test_a_wrong_weight_is_named(bf16, tmp_path):
    """The program has another down projection in layer 1 than the reference: a tenth of it changed."""
    archive = load_archive(bf16.archive_path)
    weight = archive.program.state_dict["model.layers.1.mlp.down_proj.weight"]
    weight.data[: len(weight) // 10] *= -1
    broken = Subject(bf16.model_dir, tmp_path)
    save_archive(broken.archive_file, archive)
    reference = load_archive(bf16.archive_path)
    level = layer_level.validate(broken, TOKENS, replace="1", reference=reference)
    assert level.data["first"] == "layer 1"
    assert level.data["replaced"]["holds"]  # what follows is sound
    assert not layer_level.validate(broken, TOKENS, replace="0", reference=reference).data["replaced"][
        "holds"
    ]
    ops = layer_level.validate(broken, TOKENS, ops=True, reference=reference)
    assert ops.data["first"] == "model.layers.1.mlp.down_proj#0"


def test_a_wrong_kernel_is_named(bf16, monkeypatch):
    """Attention of layer 1 with another scale, as a compiler's fault would make it."""
    right = capture.run

    def wrong(module, *options):
        for op in list(next(functions(module)).regions[0].blocks[0].operations):
            if op.operation.name == "npu.paged_attention" and op.layer.value == 1:
                with module.context, ir.Location.unknown():
                    op.attributes["scale"] = npu.build.f32_attr(2 * op.scale.value)
        return right(module, *options)

    monkeypatch.setattr(capture, "run", wrong)
    level = layer_level.validate(bf16, TOKENS, ops=True)
    assert level.data["first"] == "model.layers.1.self_attn.attn#0"


# ---- the command


@pytest.fixture(scope="module")
def baseline(bf16, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "tiny.json"
    result = run_tool("npu_baseline", "record", bf16.model_dir, "-o", path, "--tokens", 96, "--generate", 6)
    assert result.returncode == 0, result.stderr
    assert "perplexity" in result.stdout
    return path


def validate(subject: Subject, *arguments: object) -> int:
    return npu_validate.main(
        [str(subject.model_dir), "--work-dir", str(subject.work_dir), *map(str, arguments)]
    )


def test_op_level(bf16, tmp_path, monkeypatch, capsys):
    """The shapes of the model, and every thirtieth of the random cases."""
    every = op_random.at_random
    monkeypatch.setattr(op_random, "at_random", lambda seed: islice(every(seed), 0, None, 30))
    report, figures = tmp_path / "report.html", tmp_path / "figures.json"
    assert validate(bf16, "--level", "op", "--report", report, "--json", figures) == 0
    assert "cases of" in capsys.readouterr().out
    level = json.loads(figures.read_text())["levels"]["op"]
    kinds = {(kind["op"], kind["dtype"]): kind for kind in level["data"]["kinds"]}
    product = kinds["matmul", "bf16"]
    assert "2·√K" in product["reason"] and 0 < product["error"] <= product["bound"]
    assert level["holds"] and len(level["checks"]) == len(kinds) > 15
    assert all(s["count"] and s["reason"] for s in level["data"]["skipped"])


def test_a_wrong_op_fails(bf16, monkeypatch, capsys):
    """The reference is off by 6 ulp."""
    right = table.UNARY["tanh"]
    monkeypatch.setitem(table.UNARY, "tanh", lambda x: right(x) * (1 + 6 * 2.0**-23))
    monkeypatch.setattr(op_cases, "of_model", lambda *options: iter(()))
    case = MAKERS["unary tanh"](Maker("unary tanh", "f32", 0))
    monkeypatch.setattr(op_random, "at_random", lambda seed: iter([case]))
    assert validate(bf16, "--level", "op") == 1
    assert "FAIL unary tanh f32" in capsys.readouterr().out


@pytest.mark.serving
def test_serve_level(bf16, baseline, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    options = ("--level", "serve", "--baseline", baseline, "--concurrency", "1,3")
    assert validate(bf16, *options, "--json", figures) == 0
    assert "concurrency 3: " in capsys.readouterr().out
    level = json.loads(figures.read_text())["levels"]["serve"]
    assert [row["concurrency"] for row in level["data"]["rows"]] == [1, 3]
    assert all(row["same"] and row["tokens_per_s"] > 0 for row in level["data"]["rows"])
    assert "margin in fp32 where greedy text parts" in {check["name"] for check in level["checks"]}


def test_model_level_beside_a_file(bf16, baseline, tmp_path, capsys):
    report, figures = tmp_path / "report.html", tmp_path / "figures.json"
    options = ("--level", "model", "--baseline", baseline, "--unit", "roofline")
    assert validate(bf16, *options, "--report", report, "--json", figures) == 0
    assert "parity in roofline" in capsys.readouterr().out
    data = json.loads(figures.read_text())
    level = data["levels"]["model"]
    assert data["holds"] and {"top-1 agreement with fp32", "error of logprobs (rms)"} <= {
        check["name"] for check in level["checks"]
    }
    exact, chip = level["data"]["perplexity"]["PyTorch fp32"], level["data"]["perplexity"]["chip"]
    assert abs(chip / exact - 1) < 0.05 and level["data"]["perplexity"]["PyTorch bf16"] != exact
    page = report.read_text()
    embedded = re.search(r"const D = (.*);\n", page).group(1)
    assert json.loads(embedded) == data
    assert not re.search(r"(src|href)=|@import|https?://", page)  # needs no network


def test_a_broken_model_fails(bf16, baseline, tmp_path, capsys):
    """Rows of the output matrix changed places in the program alone."""
    archive = load_archive(bf16.archive_path)
    weight = archive.program.state_dict["lm_head.weight"]
    weight.data.copy_(weight.data.roll(1, 0))
    broken = Subject(bf16.model_dir, tmp_path)
    save_archive(broken.archive_file, archive)
    assert validate(broken, "--level", "model", "--baseline", baseline) == 1
    assert "FAIL top-1 agreement" in capsys.readouterr().out


def test_slower_than_asked_for_fails(bf16, baseline):
    assert validate(bf16, "--level", "model", "--baseline", baseline, "--min-parity", 1e9) == 1


def test_a_baseline_of_another_model_is_refused(bf16, tiny_qwen3, baseline, capsys):
    other = Subject(tiny_qwen3, bf16.work_dir)
    assert validate(other, "--level", "model", "--baseline", baseline) == 2
    assert "another model" in capsys.readouterr().err


def test_what_cannot_be_done_is_told(bf16, tmp_path, capsys):
    assert validate(bf16, "--level", "layer", "--replace", 9) == 2
    assert "there is no layer 9 to replace; layers are 0 to 1" in capsys.readouterr().err
    assert npu_validate.main([str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("option", ["--work-dir", "--json", "--report"])
def test_what_cannot_be_written_is_told(bf16, option, tmp_path, capsys):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "inside" if option == "--work-dir" else tmp_path
    with pytest.raises(SystemExit) as status:
        npu_validate.main([str(bf16.model_dir), option, str(path)])
    assert status.value.code == 2
    assert f"error: argument {option}: " in capsys.readouterr().err


def test_a_level_that_fails_leaves_the_others(bf16, tmp_path, monkeypatch, capsys):
    def fails(*options):
        raise ValidationError("no engine")

    monkeypatch.setattr(npu_validate, "LEVELS", ("layer", "serve"))
    monkeypatch.setattr(npu_validate._Validation, "recording", lambda *options: None)
    monkeypatch.setattr("opennpu.tools.validation.serve_level.validate", fails)
    figures = tmp_path / "figures.json"
    assert validate(bf16, "--json", figures) == 2
    assert "npu-validate: error: no engine" in capsys.readouterr().err
    levels = json.loads(figures.read_text())["levels"]
    assert levels["layer"]["holds"] and not levels["serve"]["holds"]
    assert levels["serve"]["error"] == "no engine"


def test_logits_without_numbers_fail():
    tokens = list(range(8))
    exact = digest(torch.randn(8, 16), tokens)
    broken = digest(torch.full((8, 16), torch.nan), tokens)
    checks = model_level.logits_checks(model_level.agreement(broken, exact), None, 8)
    assert not any(check.holds for check in checks if "agreement" not in check.name)
    assert perplexity([-1e4]) == float("inf")


def test_an_archive_is_of_its_model(bf16, tiny_qwen3):
    assert bf16.archive_file != Subject(tiny_qwen3, bf16.work_dir).archive_file


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        npu_validate.main(["--help"])
    assert "examples:" in capsys.readouterr().out
