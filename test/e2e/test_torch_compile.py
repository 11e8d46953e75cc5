"""torch.compile(backend="opennpu") on the torch device, against PyTorch on the CPU."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from opennpu.compiler import dynamo
from torch import nn

DEVICE = "opennpu"
CLOSE = dict(rtol=1e-5, atol=1e-5)  # sums of up to 64 f32 products in another order


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    dynamo.clear_report()
    torch.opennpu.reset_fallbacks()
    torch.manual_seed(0)


class Mlp(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(width, 64), nn.Linear(64, width), nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x + self.down(F.silu(self.up(x))))


def compiled(model, **options):
    return torch.compile(model, backend="opennpu", options=options)


def graphs():
    return [len(graph.parts) for graph in dynamo.report()]


@torch.no_grad()
def test_one_program_for_any_batch():
    model = Mlp()
    chip = copy.deepcopy(model).to(DEVICE)
    run = compiled(chip, strict=True)
    for rows in (4, 7, 1, 9, 200):
        x = torch.randn(rows, 32)
        torch.testing.assert_close(run(x.to(DEVICE)).cpu(), model(x), **CLOSE)
    assert graphs() == [1, 1, 1], "for 4 rows, for any number of them, and for one"


@torch.no_grad()
def test_marked_dimension_needs_one_graph():
    model = Mlp()
    run = compiled(copy.deepcopy(model).to(DEVICE))
    for rows in (4, 7, 9):
        x = torch.randn(rows, 32)
        on_chip = x.to(DEVICE)
        torch._dynamo.mark_dynamic(on_chip, 0)
        torch.testing.assert_close(run(on_chip).cpu(), model(x), **CLOSE)
    assert graphs() == [1]


def split(x):
    """kthvalue is the host's, in the middle."""
    y = torch.sin(x) * 2
    z = torch.kthvalue(y, 2).values
    return torch.exp(y - z.unsqueeze(-1)), y.shape[0]


@torch.no_grad()
def test_unsupported_operator_is_split_off():
    x = torch.randn(5, 16)
    with pytest.warns(UserWarning, match="kthvalue"):
        result, rows = compiled(split)(x.to(DEVICE))
    torch.testing.assert_close(result.cpu(), split(x)[0], **CLOSE)
    assert rows == 5
    (graph,) = dynamo.report()
    assert len(graph.parts) == 2
    (eager,) = graph.eager
    assert (eager.operator, eager.reason) == ("aten.kthvalue", "there is no conversion for it")
    assert "test_torch_compile.py" in eager.where
    assert "aten.kthvalue" in str(dynamo.report())


@torch.no_grad()
def test_strict_names_operator_and_line():
    with pytest.raises(
        Exception, match=r"aten\.kthvalue: there is no conversion(.|\n)*test_torch_compile\.py:\d+"
    ):
        compiled(split, strict=True)(torch.randn(5, 16, device=DEVICE))


@torch.no_grad()
def test_dtype_that_the_chip_lacks():
    def function(x):
        return (x.double() + 1e-12).float() * 2

    x = torch.randn(6)
    with pytest.warns(UserWarning):
        result = compiled(function)(x.to(DEVICE))
    torch.testing.assert_close(result.cpu(), function(x), **CLOSE)
    assert "float64" in str(dynamo.report())


def test_model_on_the_host_is_an_error():
    with pytest.raises(Exception, match=r'the model is on cpu(.|\n)*model\.to\("opennpu"\)'), torch.no_grad():
        compiled(Mlp())(torch.randn(2, 32))


def test_unknown_option():
    with pytest.raises(Exception, match="no option speed; it has strict, dump_dir"):
        compiled(Mlp().to(DEVICE), speed=1)(torch.randn(2, 32, device=DEVICE))


@torch.no_grad()
def test_dump_dir(tmp_path):
    def function(x):
        return torch.sin(x) * x.sum() - 0.125

    compiled(function, dump_dir=tmp_path)(torch.randn(3, 8, device=DEVICE))
    files = {path.name for path in tmp_path.rglob("*.txt")}
    assert files == {"torch.txt", "npu.txt", "npu_tile.txt", "npu_isa.txt"}


@torch.no_grad()
def test_views_inputs_and_numbers_come_back():
    def function(x, n):
        return x.t(), x, x[1:], (x + n).view(-1), n * 2, x.transpose(0, 1) * 2

    x = torch.randn(4, 6)
    results = compiled(function)(x.to(DEVICE), 3)
    for result, expected in zip(results, function(x, 3), strict=True):
        if isinstance(expected, int):
            assert result == expected
        else:
            torch.testing.assert_close(result.cpu(), expected, **CLOSE)


@torch.no_grad()
def test_inputs_that_are_not_row_major():
    def function(x, y):
        return torch.relu(x) @ y

    x, y = torch.randn(6, 4), torch.randn(5, 6)
    result = compiled(function)(x.to(DEVICE).t(), y.to(DEVICE).t())
    torch.testing.assert_close(result.cpu(), function(x.t(), y.t()), **CLOSE)


@torch.no_grad()
def test_changes_in_place_reach_the_caller():
    def function(cache, x, position):
        cache[:, position] = x * 2
        return cache.sum()

    cache, x = torch.zeros(3, 8, 4), torch.randn(3, 2, 4)
    position = torch.tensor([5, 1])
    on_chip = cache.to(DEVICE)
    result = compiled(function, strict=True)(on_chip, x.to(DEVICE), position.to(DEVICE))
    torch.testing.assert_close(result.cpu(), function(cache, x, position), **CLOSE)
    torch.testing.assert_close(on_chip.cpu(), cache, **CLOSE)


# ---- weights


def packed_bytes(run) -> int:
    """What a call keeps in chip memory beyond its result, once."""
    gc.collect()
    before = torch.opennpu.memory_allocated()
    run()
    gc.collect()
    return torch.opennpu.memory_allocated() - before


@torch.no_grad()
def test_weights_are_packed_once():
    model = Mlp().to(DEVICE)
    run, x = compiled(model), torch.randn(4, 32, device=DEVICE)
    assert packed_bytes(lambda: run(x)) >= 2 * 32 * 64 * 4
    assert packed_bytes(lambda: run(x)) == 0


@torch.no_grad()
def test_graphs_of_one_model_share_their_weights():
    model = Mlp().to(DEVICE)
    run = compiled(model)
    run(torch.randn(4, 32, device=DEVICE))
    x = torch.randn(5, 32, device=DEVICE)
    assert packed_bytes(lambda: run(x)) == 0
    assert len(graphs()) == 2


@torch.no_grad()
@pytest.mark.parametrize("change", ["in place", "load_state_dict", "data"])
def test_changed_parameters_are_packed_again(change):
    model, other = Mlp(), Mlp()
    chip = copy.deepcopy(model).to(DEVICE)
    run, x = compiled(chip), torch.randn(4, 32)
    run(x.to(DEVICE))
    if change == "in place":
        chip.up.weight.mul_(2)
        model.up.weight.mul_(2)
    elif change == "load_state_dict":
        chip.load_state_dict(other.state_dict())
        model = other
    else:
        chip.up.weight.data = other.up.weight.to(DEVICE)
        model.up.weight.data = other.up.weight
    torch.testing.assert_close(run(x.to(DEVICE)).cpu(), model(x), **CLOSE)


@torch.no_grad()
def test_one_code_for_two_models():
    models = [Mlp(), Mlp()]
    chips = [copy.deepcopy(model).to(DEVICE) for model in models]
    x = torch.randn(4, 32)
    runs = [compiled(chip) for chip in chips]
    for _ in range(2):
        for run, model in zip(runs, models, strict=True):
            torch.testing.assert_close(run(x.to(DEVICE)).cpu(), model(x), **CLOSE)


@torch.no_grad()
def test_weights_go_with_the_model():
    x = torch.randn(4, 32, device=DEVICE)

    def once():
        compiled(Mlp().to(DEVICE))(x)

    once()
    assert packed_bytes(once) == 0


# ---- training


def test_training_step():
    model = Mlp()
    chip = copy.deepcopy(model).to(DEVICE)
    run = compiled(chip)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, chip)]
    for step in range(3):
        x = torch.randn(8, 32, generator=torch.Generator().manual_seed(step))
        losses = [model(x).square().mean(), run(x.to(DEVICE)).square().mean()]
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(losses[1].detach().cpu(), losses[0].detach(), **CLOSE)
    for mine, expected in zip(chip.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.detach().cpu(), expected.detach(), **CLOSE)
    assert {graph.kind for graph in dynamo.report()} == {"forward", "backward"}
