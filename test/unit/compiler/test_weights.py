"""The packed layout against its definition, element by element in plain loops."""

import numpy as np
import pytest
import torch
from opennpu.compiler.weights import check_weights, have_values, segment
from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import Chip

CHIP = Chip.load("npu1-lite")


def reference_pack(w: np.ndarray, nt: int, gate: bool, pair: int) -> np.ndarray:
    """docs/architecture.md, weight layouts, read literally; w is [N][K]."""
    halves = np.split(w, 2) if gate else [w]
    part = nt // len(halves)
    out = []
    for first in range(0, len(halves[0]), part):
        rows = [half[first : first + part] for half in halves]
        for k0 in range(0, w.shape[1], CHIP.mx_k):
            depth = min(CHIP.mx_k, w.shape[1] - k0)
            kt = -(-depth // pair) * pair
            block = np.zeros(kt * nt, w.dtype)
            for n in range(nt):
                for k in range(depth if n % part < len(rows[0]) else 0):
                    strip = n // CHIP.strip * (kt // pair) + k // pair
                    value = rows[n // part][n % part, k0 + k]
                    block[(strip * CHIP.strip + n % CHIP.strip) * pair + k % pair] = value
            out.append(block)
    return np.concatenate(out)


@pytest.mark.parametrize("dtype, name", [(torch.bfloat16, "bf16"), (torch.float32, "f32")])
@pytest.mark.parametrize("n, k, nt", [(64, 128, 32), (40, 131, 32), (96, 300, 96), (10, 5, 32)])
@pytest.mark.parametrize("transpose, gate", [(False, False), (True, False), (False, True)])
def test_packed(dtype, name, n, k, nt, transpose, gate):
    w = torch.randn(n, k).to(dtype)
    pair = CHIP.pair if dtype == torch.bfloat16 else 1
    bits = w.view({2: torch.int16, 4: torch.int32}[w.element_size()]).numpy()
    expected = reference_pack(bits, nt, gate, pair)
    stored = w.T.contiguous() if transpose else w
    entry = {
        "names": ["w"], "layout": "packed", "dtype": name, "shape": list(stored.shape), "nt": nt,
        "transpose": transpose, "gate": gate, "offset": 64, "bytes": expected.nbytes,
    }  # fmt: skip
    size = 64 + expected.nbytes + 32
    data = b"".join(segment([entry], {"w": stored}, CHIP, size))
    assert len(data) == size
    assert data[64 : 64 + expected.nbytes] == expected.tobytes()
    assert not any(data[:64]) and not any(data[64 + expected.nbytes :])


def test_rows_and_tables():
    w = torch.arange(6, dtype=torch.int64).reshape(2, 3)
    entries = [
        {"layout": "table", "dtype": "i64", "entries": [0, 64], "offset": 64, "bytes": 16},
        {"names": ["w"], "layout": "rows", "dtype": "i64", "shape": [2, 3], "offset": 0, "bytes": 48},
    ]
    data = b"".join(segment(entries, {"w": w}, CHIP, 128))
    assert np.frombuffer(data, "<i8").tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 64, *[0] * 6]


def test_every_wrong_weight_is_told():
    entry = {"names": ["a"], "layout": "rows", "dtype": "f32", "shape": [2]}
    entries = [entry, {**entry, "names": ["b"]}, {**entry, "names": ["c"]}]
    tensors = {"b": torch.zeros(3), "c": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(CompileError, match="weight a is missing") as error:
        check_weights(entries, tensors)
    assert len(error.value.problems) == 3


def test_dummy_weights_have_no_values():
    entry = {"names": ["a"], "layout": "rows", "dtype": "f32", "shape": [2], "offset": 0, "bytes": 8}
    assert have_values([entry], {"a": torch.zeros(2)})
    assert not have_values([entry], {"a": torch.zeros(2, device="meta")})
