"""npu-bisect finds a pass that was made wrong, and its reproducer shows it again."""

import json
from functools import wraps

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler.interpreters.tile_memory import CODES
from opennpu.compiler.passes import registry
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.pipeline import PIPELINE
from opennpu.compiler.rewriting import attr
from opennpu.compiler.tile_ir import walk
from opennpu.dialects import npu
from opennpu.tools import npu_bisect
from opennpu.tools.bisection.kernels import STEPS, Left, same
from safetensors.numpy import save_file
from torch_mlir import ir
from torch_mlir.dialects import arith


class Model(torch.nn.Module):
    """Two products with biases, a difference, a norm, and enough rows for several tiles."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(24, 40), torch.nn.Linear(40, 24)
        self.norm = torch.nn.LayerNorm(24)

    def forward(self, x):
        y = self.down(F.gelu(self.up(x)))
        return self.norm(y - x), (x @ x.transpose(0, 1)).softmax(-1)


ROWS = torch.export.Dim("rows", min=1, max=1024)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bisect") / "model.pt2"
    program = torch.export.export(Model().eval(), (torch.randn(5, 24),), dynamic_shapes=({0: ROWS},))
    torch.export.save(program, path)
    return path


def ops(module, name):
    return [op for op in walk(module.body) if op.name == name]


# ---- wrong passes


def drop_bias(module):
    """The first product with a bias loses it."""
    for op in [op for op in ops(module, "npu.matmul") if "bias" in attr(op, "epilogue")][:1]:
        with ir.InsertionPoint(op), op.location:
            op.operands[2] = npu.constant(0.0, npu.dims(op.operands[2]), npu.dtype(op.operands[2]))


def swap_operands(module):
    for op in [op for op in ops(module, "npu.binary") if attr(op, "op") == "sub"]:
        op.operands[0], op.operands[1] = op.operands[1], op.operands[0]


def short_loop(module):
    """The last of the innermost loops ends a step early."""
    for loop in ops(module, "scf.for")[-1:]:
        with ir.InsertionPoint(loop), loop.location:
            loop.operands[1] = arith.subi(loop.operands[1], loop.operands[2])


def overlapping(module):
    """Every buffer at the foot of its memory."""
    for op in ops(module, "npu_tile.alloc"):
        op.attributes["address"] = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), 0)


def wrong_activation(module):
    for op in ops(module, "npu.unary"):
        if attr(op, "op") == "gelu":
            op.attributes["op"] = ir.StringAttr.get("relu")


def wrong_instruction(module):
    for op in ops(module, "npu_isa.v_binary"):
        if ir.StringAttr(op.attributes["op"]).value == "sub":
            op.attributes["op"] = ir.StringAttr.get("add")


@pytest.fixture
def planted(monkeypatch):
    """planted(pass, what it does wrong after its work) puts `test-PASS` in the place of the pass."""
    made = []

    def plant(name: str, spoil) -> None:
        right = registry.find(name)

        @wraps(right.run)
        def run(module, **options):
            right.run(module, **options)
            spoil(module)

        made.append(f"test-{name}")
        register_pass(made[-1], "a pass of a test")(run)
        pipeline = {k: tuple(made[-1] if p == name else p for p in v) for k, v in PIPELINE.items()}
        monkeypatch.setattr("opennpu.compiler.pipeline.PIPELINE", pipeline)

    yield plant
    for name in made:
        del registry.PASSES[name]


CASES = {
    "conversion": ("convert-torch-to-npu", wrong_activation, "aten.gelu"),
    "bias": ("npu-fuse-epilogue", drop_bias, "npu.matmul"),
    "operands": ("npu-canonicalize", swap_operands, "npu.binary"),
    "tiles": ("convert-npu-to-tile", short_loop, "npu."),
    "loop": ("npu-tile-double-buffer", short_loop, "kernel "),
    "memory": ("npu-tile-plan-memory", overlapping, "kernel "),
    "instruction": ("convert-tile-to-isa", wrong_instruction, "kernel "),
}


@pytest.mark.parametrize("case", CASES)
def test_the_wrong_pass_is_found(case, archive, planted, tmp_path, capsys):
    name, spoil, op = CASES[case]
    planted(name, spoil)
    folder = tmp_path / "wrong"
    assert npu_bisect.main([str(archive), "-o", str(folder)]) == 1
    text = capsys.readouterr().out
    assert f"test-{name} is the first pass whose output differs" in text
    changed = text.partition("It changes the result of\n")[2].splitlines()
    assert changed[0].strip().startswith(op), text
    assert "the whole" not in text

    command = text.partition("Reproduce with: npu-bisect ")[2].split()
    assert npu_bisect.main(command) == 1
    assert f"test-{name}" in capsys.readouterr().out


class Index(torch.nn.Module):
    def forward(self, x):
        return x.argmax(-1)


def other_axis(module):
    """The index of the greatest of a column, not of a row, of a square matrix."""
    for op in ops(module, "npu.reduce"):
        source = op.operands[0]
        with ir.InsertionPoint(op), op.location:
            op.operands[0] = npu.transpose(source, [1, 0])


def test_a_conversion_with_wrong_integers(planted, tmp_path, capsys):
    torch.manual_seed(0)
    path = tmp_path / "index.pt2"
    torch.export.save(torch.export.export(Index(), (torch.randn(8, 8),)), path)
    planted("convert-torch-to-npu", other_axis)
    assert npu_bisect.main([str(path)]) == 1
    assert "test-convert-torch-to-npu is the first pass whose output differs" in capsys.readouterr().out


def test_a_reproducer_that_cannot_run(archive, planted, tmp_path, capsys):
    planted("npu-fuse-epilogue", drop_bias)
    folder = tmp_path / "wrong"
    npu_bisect.main([str(archive), "-o", str(folder)])
    launch = json.loads((folder / "launch.json").read_text())
    launch["values"]["inputs"] = {}
    (folder / "launch.json").write_text(json.dumps(launch))
    capsys.readouterr()
    assert npu_bisect.main([str(folder)]) == 2
    assert "npu-bisect: error: " in capsys.readouterr().err


def test_a_right_pipeline(archive, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((3, 24), np.float32))
    assert npu_bisect.main([str(archive), "--input", str(tmp_path / "x.npy")]) == 0
    text = capsys.readouterr().out
    assert all(name in text for names in PIPELINE.values() for name in names)
    assert "no pass changes what the model computes" in text


class Layers(torch.nn.Module):
    """Equal layers, which become a loop."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = x + F.gelu(layer(x))
        return x


@pytest.mark.parametrize("wrong", [False, True])
def test_a_loop_over_layers(wrong, planted, tmp_path, capsys):
    torch.manual_seed(0)
    path, folder = tmp_path / "layers.pt2", tmp_path / "wrong"
    torch.export.save(torch.export.export(Layers().eval(), (torch.randn(5, 16),)), path)
    if wrong:
        planted("npu-tile-double-buffer", short_loop)
    assert npu_bisect.main([str(path), "-o", str(folder)]) == int(wrong), capsys.readouterr().out
    assert folder.exists() == wrong
    if wrong:
        assert "npu.repeat" not in (folder / "before.mlir").read_text()
        assert npu_bisect.main([str(folder)]) == 1


def test_a_part_of_the_pipeline(archive, capsys):
    assert npu_bisect.main([str(archive), "--stage", "npu_isa"]) == 0
    assert "npu-fuse-epilogue" not in capsys.readouterr().out


def test_a_reproducer_of_a_right_pass(archive, planted, tmp_path, capsys):
    """The pass was mended: the folder does not differ any more."""
    planted("npu-fuse-epilogue", drop_bias)
    folder = tmp_path / "wrong"
    npu_bisect.main([str(archive), "-o", str(folder)])
    launch = json.loads((folder / "launch.json").read_text())
    (folder / "launch.json").write_text(json.dumps({**launch, "pass": "npu-fuse-epilogue"}))
    assert npu_bisect.main([str(folder)]) == 0
    assert "npu-fuse-epilogue keeps what the module computes" in capsys.readouterr().out


def test_inputs_that_do_not_fit(archive, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.ones((3, 24), np.float32))
    assert npu_bisect.main([str(archive), "--input", f"y={tmp_path / 'x.npy'}"]) == 2
    assert "the program's inputs are x" in capsys.readouterr().err


def test_a_compiled_program_is_not_searched(tmp_path, capsys):
    path = tmp_path / "model.npu"
    save_file({"program": np.zeros(8, np.uint8)}, path, {"opennpu.format": "1"})
    assert npu_bisect.main([str(path)]) == 2
    assert "no graph" in (told := capsys.readouterr().err) and "compiled from" in told


def left(values: np.ndarray, dtype: str) -> Left:
    raw = values.view(np.uint8)
    return Left(raw, np.full(raw.size, CODES[dtype], np.uint8))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_only_floats_may_be_a_step_off(dtype):
    """The bits of 1, of the negative least number and of infinity, each as far off as may be, and farther."""
    word = {"f32": np.uint32, "bf16": np.uint16}[dtype]
    infinity = {"f32": 0x7F800000, "bf16": 0x7F80}[dtype]
    minus = 1 << (8 * word().itemsize - 1)
    before = left(np.array([infinity // 2, minus + 1, infinity - 4], word), dtype)
    most = STEPS[dtype]
    near = np.array([infinity // 2 + most, most - 1, infinity - 4 - most], word)
    assert same(before, Left(near.view(np.uint8)), STEPS)
    assert not same(before, Left(near.view(np.uint8)), {})
    for i in range(3):
        far = near.copy()
        far[i] = [infinity // 2 + most + 1, most, infinity - 5 - most][i]
        assert not same(before, Left(far.view(np.uint8)), STEPS)


def test_integers_and_halves_of_words_are_equal():
    ones = np.array([1, 70000], np.int32)
    for dtype, off in [("i32", [1, 70001]), ("i8", [1, 70001]), ("f32", [1, 70000 + (1 << 16)])]:
        assert not same(left(ones, dtype), Left(np.array(off, np.int32).view(np.uint8)), STEPS)
    unwritten = Left(ones.view(np.uint8), np.zeros(8, np.uint8))
    assert not same(unwritten, Left(np.array([2, 70000], np.int32).view(np.uint8)), STEPS)
