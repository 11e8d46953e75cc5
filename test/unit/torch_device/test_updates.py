"""Elements replaced in place, on the chip alone, against the host: rows, places, masks, positions."""

import pytest
import torch

DEVICE = "opennpu"


@pytest.fixture(autouse=True)
def strict():
    torch.opennpu.set_strict(True)
    yield
    torch.opennpu.set_strict(False)


def check(function, *tensors):
    """The result, and what the arguments are after the call."""
    host, chip = [t.clone() for t in tensors], [t.to(DEVICE) for t in tensors]
    wanted, got = function(*host), function(*chip)
    for expected, actual in zip([wanted, *host], [got, *chip], strict=True):
        if expected is not None:
            assert torch.equal(actual.cpu(), expected)


def put(x, *indices_and_values):
    *indices, values = indices_and_values
    x[tuple(indices)] = values


DTYPES = [torch.float32, torch.bfloat16, torch.int32, torch.int64, torch.int8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows(dtype):
    generator = torch.Generator().manual_seed(0)
    for count in (1, 5, 700):
        x = torch.randint(0, 100, (1000, 7), generator=generator).to(dtype)
        rows = torch.randperm(1000, generator=generator)[:count]
        values = torch.randint(0, 100, (count, 7), generator=generator).to(dtype)
        check(put, x, rows, values)
        check(put, x, rows.int() - 1000, values)


def test_places():
    """As a table of requests and positions is written."""
    x, rows, columns = (
        torch.arange(17 * 300).view(17, 300).int(),
        torch.tensor([1, 4, 5]),
        torch.tensor([7, 0, 299]),
    )
    check(put, x, rows, columns, torch.tensor([1, 2, 3]).int())
    check(lambda *given: put(*given, 5), x, rows, columns)
    check(lambda x, i, j, v: put(x, i, j - 300, v), x, rows - 17, columns, torch.tensor([1, 2, 3]).int())
    check(lambda x, i, v: put(x, slice(None), i, v), torch.randn(4, 9, 3), rows, torch.randn(4, 3, 3))


def test_a_view_whose_rows_lie_apart():
    """Only what is named is written: the rest of the memory stays."""

    def write(x, pages, places, values):
        view = x[1].transpose(1, 2)
        view[pages, places] = values
        return view

    x, values = torch.randn(2, 5, 2, 4, 8), torch.randn(3, 2, 8)
    check(write, x, torch.tensor([0, 4, 2]), torch.tensor([3, 1, 1]), values)


def test_masks():
    x, mask = torch.randn(4, 9), torch.randn(4, 9) > 0
    check(lambda x, m: put(x, m, 0.5), x, mask)
    check(lambda x, m: put(x, m, 0.5), x, mask[:, 0])


UPDATES = {
    "index_copy_": lambda x: x.index_copy_(1, torch.tensor([2, 7], device=x.device), x[:, :2].clone()),
    "index_copy": lambda x: x.index_copy(0, torch.tensor([3, 0], device=x.device), x[:2]),
    "index_put": lambda x: x.index_put((torch.tensor([3, 0], device=x.device),), x[:2]),
    "index_put, expanded": lambda x: (
        x[:1].expand(4, 9).index_put((torch.tensor([3, 0], device=x.device),), x[:2])
    ),
    "scatter, expanded": lambda x: (
        x[0, 0].expand(4, 9).scatter(1, torch.tensor([[2], [1], [8], [0]], device=x.device), x[:, :1])
    ),
    "scatter_": lambda x: x.scatter_(
        1, torch.tensor([[2], [1], [8], [0]], device=x.device), x[:, :1].clone()
    ),
    "scatter": lambda x: x.scatter(0, torch.tensor([[2, 1, 3]], device=x.device), 2.5),
    "scatter_add_": lambda x: x.scatter_add_(
        1, torch.tensor([[2], [1], [8], [2]], device=x.device), x[:, :1] * 2
    ),
    "no rows": lambda x: x.index_copy_(0, torch.empty(0, dtype=torch.long, device=x.device), x[:0]),
}


@pytest.mark.parametrize("name", UPDATES)
def test_update(name):
    check(UPDATES[name], torch.randn(4, 9, generator=torch.Generator().manual_seed(1)))


def test_many_positions():
    index = torch.stack([torch.randperm(900)[:400] for _ in range(4)])
    check(lambda x, i, v: x.scatter(1, i, v), torch.randn(4, 900), index, torch.randn(4, 400))


OUTSIDE = {
    "scatter_": lambda x, at: x.scatter_(1, torch.tensor([[0], [0], [at]], device=x.device), 1.0),
    "index_put_, column": lambda x, at: put(x, *(torch.tensor([i], device=x.device) for i in (1, at)), 1.0),
    "index_put_, row": lambda x, at: put(x, *(torch.tensor([i], device=x.device) for i in (at, 2)), 1.0),
}


@pytest.mark.parametrize("at", [7, -8])
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_out_of_range_in_one_dimension(name, at):
    """It names no element, though one of another row has its number among all."""
    with pytest.raises((IndexError, RuntimeError)):
        OUTSIDE[name](torch.zeros(4, 5), at)
    x = torch.zeros(4, 5, device=DEVICE)
    with pytest.raises(torch.AcceleratorError):
        OUTSIDE[name](x, at)
        torch.accelerator.synchronize()
    written = x.cpu()
    assert written[:, 1:].count_nonzero() == 0 and written[3, 0] == 0


def test_errors_are_pytorchs():
    x, rows = torch.zeros(4, 2, device=DEVICE), torch.tensor([1, 2], device=DEVICE)
    torch.opennpu.set_strict(False)  # the host finds this one
    with pytest.raises(RuntimeError, match="shape mismatch"):
        x[rows] = torch.ones(3, 2, device=DEVICE)
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        x.index_copy_(0, rows, x[1:3])


SEARCHES = {
    "cumsum": lambda x: x.cumsum(0),
    "cumsum_": lambda x: x.cumsum_(0),
    "searchsorted": lambda x: torch.searchsorted(x, torch.arange(20, device=x.device), right=True),
    "searchsorted, int32": lambda x: torch.searchsorted(x, torch.arange(20, device=x.device), out_int32=True),
    "count_nonzero": torch.count_nonzero,
    "count_nonzero, dim": lambda x: torch.count_nonzero(x.view(2, 2), 0),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_lists_of_lengths(name):
    check(SEARCHES[name], torch.tensor([0, 3, 3, 8]))
