"""torch.autocast("opennpu"): which operators compute in which precision."""

import threading

import pytest
import torch


def x() -> torch.Tensor:
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).to("opennpu")


def test_bfloat16_is_the_default():
    assert torch.get_autocast_dtype("opennpu") == torch.bfloat16
    assert torch.opennpu.get_amp_supported_dtype() == [torch.bfloat16]
    assert torch.amp.is_autocast_available("opennpu") and not torch.is_autocast_enabled("opennpu")
    with torch.autocast("opennpu"):
        assert torch.is_autocast_enabled("opennpu")
        assert torch.mm(x(), x()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "dtype"),
    [
        (lambda: x() @ x(), torch.bfloat16),
        (lambda: torch.nn.functional.linear(x(), x(), x()[0]), torch.bfloat16),
        (lambda: torch.bmm(x()[None], x()[None]), torch.bfloat16),
        (lambda: torch.softmax(x().bfloat16(), -1), torch.float32),
        (lambda: torch.nn.functional.layer_norm(x().bfloat16(), (8,)), torch.float32),
        (lambda: torch.exp(x().bfloat16()), torch.float32),
        (lambda: torch.sum(x().bfloat16()), torch.float32),
        (lambda: torch.addcmul(x(), x().bfloat16(), x()), torch.float32),
        (lambda: torch.relu(x()), torch.float32),
        (lambda: torch.relu(x().bfloat16()), torch.bfloat16),
    ],
)
def test_precisions(call, dtype):
    with torch.autocast("opennpu", dtype=torch.bfloat16):
        assert call().dtype == dtype
        with torch.autocast("opennpu", enabled=False):
            assert torch.mm(x(), x()).dtype == torch.float32


def test_the_result_is_that_of_the_casts():
    with torch.autocast("opennpu"):
        got = x() @ x()
    assert torch.equal(got.cpu(), (x().bfloat16() @ x().bfloat16()).cpu())


def test_other_devices_are_left_alone():
    with torch.autocast("opennpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.mm(x(), x()).dtype == torch.float32


def test_an_unsupported_dtype_is_warned_about():
    with (
        pytest.warns(UserWarning, match="not supported"),
        torch.autocast("opennpu", dtype=torch.float64),
    ):
        assert torch.mm(x(), x()).dtype == torch.float32


def test_a_new_thread_names_its_dtype():
    """PyTorch keeps the default of a device per thread; a dtype given works in all of them."""
    seen = []

    def work():
        with torch.autocast("opennpu", dtype=torch.bfloat16):
            seen.append(torch.mm(x(), x()).dtype)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [torch.bfloat16]


def test_training_under_autocast():
    model = torch.nn.Linear(8, 4).to("opennpu")
    with torch.autocast("opennpu"):
        loss = model(x()).float().pow(2).mean()
    loss.backward()
    assert model.weight.grad.dtype == torch.float32 and model.weight.grad.is_opennpu
