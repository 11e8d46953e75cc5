"""What a scheduler does to batches of ever other sizes: nothing is compiled for another number."""

import pytest
import torch
from opennpu.runtime.torch_device import operators

DEVICE = "opennpu"


def put(x, rows, columns, values):
    x[rows, columns] = values
    return x


def put_rows(x, rows, values):
    x[rows] = values
    return x


def numbers(count: int) -> torch.Tensor:
    return torch.arange(count) * 5 % 64


OPERATIONS = {
    "places": lambda n: (put, torch.zeros(64, 64).int(), numbers(n), numbers(n).flip(0), numbers(n).int()),
    "elements": lambda n: (put_rows, torch.zeros(64).long(), numbers(n), numbers(n)),
    "rows": lambda n: (put_rows, torch.zeros(64, n), numbers(n), torch.rand(n, n)),
    "one value": lambda n: (put_rows, torch.zeros(64, n), numbers(n), torch.rand(1)),
    "joined": lambda n: (lambda *parts: torch.cat(parts), *(numbers(n + i) for i in range(n))),
    "joined rows": lambda n: (lambda *parts: torch.cat(parts, -2), *(torch.rand(1, n, 3) for _ in range(n))),
    "joined dtypes": lambda n: (lambda *parts: torch.cat(parts), *(numbers(n), numbers(n).int()) * n),
    "joined with nothing of a wider dtype": lambda n: (
        lambda *parts: torch.cat(parts), numbers(n).int(), torch.empty(0).long(), torch.empty(0).long()
    ),
    "joined columns of other strides": lambda n: (
        lambda *parts: torch.cat([part.t() for part in parts]), *(torch.rand(4, n) for _ in range(n))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_counts_share_programs(name, monkeypatch):
    for count in (2, 3, 21):
        function, *tensors = OPERATIONS[name](count)
        result = function(*(tensor.to(DEVICE) for tensor in tensors))
        torch.testing.assert_close(result.cpu(), function(*tensors), rtol=0, atol=0)
        monkeypatch.setattr(operators, "compile_call", never)  # from the second on


def never(target, *args):
    raise AssertionError(f"{target} is compiled once more")
