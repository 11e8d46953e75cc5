"""Models from plain torch.export through npu-compile, against PyTorch.

One program serves every size of the batch and of the sequence. Both engines are compared with
PyTorch in float64 on the same weights.
"""

import numpy as np
import pytest
import torch
from opennpu.tools import npu_run
from small_models import BertEncoder, Compiled, Mlp, VisionTransformer, in_dtype, relative_error
from torch.export import Dim

BATCH = Dim("batch", min=1, max=64)


def rows(batch: int) -> tuple:
    return (torch.randn(batch, 40),)


def pictures(batch: int) -> tuple:
    return (torch.randn(batch, 3, 24, 24),)


def texts(batch: int, length: int) -> tuple:
    """Token ids, and a mask that hides the end of all but the first."""
    lengths = torch.linspace(length, 1, batch).long()
    mask = (torch.arange(length) < lengths[:, None]).long()
    return torch.randint(0, 131, (batch, length)), mask


TEXT_SHAPE = {0: BATCH, 1: Dim("length", min=1, max=96)}
MODELS = {
    "mlp": (Mlp, rows, ({0: BATCH},), [(3,), (1,), (2,), (64,)]),
    "vit": (VisionTransformer, pictures, ({0: BATCH},), [(3,), (1,), (2,), (9,)]),
    "bert": (BertEncoder, texts, (TEXT_SHAPE,) * 2, [(3, 5), (1, 1), (2, 96), (7, 33)]),
}
"""Module, what makes its inputs, dynamic shapes, sizes: the first of them for the export and for
the reference engine."""


@pytest.fixture(scope="module", params=["f32", "bf16"])
def dtype(request) -> torch.dtype:
    return {"f32": torch.float32, "bf16": torch.bfloat16}[request.param]


@pytest.fixture(scope="module", params=MODELS)
def case(request, dtype, tmp_path_factory):
    """(module, compiled, inputs of every size)."""
    make, inputs_of, dynamic, sizes = MODELS[request.param]
    torch.manual_seed(0)
    module = make().eval().to(dtype)
    runs = [tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs_of(*size)) for size in sizes]
    return module, Compiled(module, runs[0], dynamic, tmp_path_factory.mktemp(request.param)), runs


def bound(module, dtype: torch.dtype, inputs: tuple, exact: list) -> list[float]:
    """The relative error that each output may have.

    float32: sums in another order, functions within 4 ulp: some ulp (1.2e-7) through a few layers.
    bfloat16: both round to 8 bits after most operators, in other places; half as much again as
    PyTorch's own error is room for that, not for a wrong formula.
    """
    if dtype == torch.float32:
        return [3e-6] * len(exact)
    return [1.5 * relative_error(y, e) for y, e in zip(in_dtype(module, dtype, inputs), exact, strict=True)]


def check(module, dtype: torch.dtype, inputs: tuple, outputs: list) -> None:
    exact = in_dtype(module, torch.float64, inputs)
    for y, e, limit in zip(outputs, exact, bound(module, dtype, inputs, exact), strict=True):
        assert (y.shape, y.dtype) == (e.shape, dtype)
        assert relative_error(y, e) <= limit


def test_every_size_on_the_native_engine(case, dtype):
    module, compiled, runs = case
    for inputs in runs:
        check(module, dtype, inputs, compiled(*inputs))


def test_reference_engine_without_races(case, dtype):
    module, compiled, runs = case
    check(module, dtype, runs[0], compiled(*runs[0], engine="reference", race_check=True))


def test_rows_do_not_depend_on_the_batch(case):
    """Bit for bit: a row of a batch is what it is alone."""
    _, compiled, runs = case
    for inputs in runs[2:]:
        together = compiled(*inputs)
        alone = compiled(*(x[-1:] for x in inputs))
        assert all(torch.equal(t[-1:], a) for t, a in zip(together, alone, strict=True))


def test_npu_run(case, dtype, tmp_path, capsys):
    """From .npy files to .npy files; NumPy has no bfloat16, so those hold float32."""
    _, compiled, runs = case
    inputs, expected = runs[-1], compiled(*runs[-1])
    files = [tmp_path / f"x{i}.npy" for i in range(len(inputs))]
    for file, x in zip(files, inputs, strict=True):
        np.save(file, x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy())
    results = [tmp_path / f"y{i}.npy" for i in range(len(expected))]
    arguments = [str(compiled.path), "--input", *map(str, files), "--output", *map(str, results)]
    assert npu_run.main(arguments) == 0
    assert all(str(file) in capsys.readouterr().out for file in results[:1])
    for file, y in zip(results, expected, strict=True):
        assert np.array_equal(np.load(file), y.float().numpy())
