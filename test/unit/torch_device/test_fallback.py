"""What runs on the host: right, counted with a reason, warned about once, an error in strict mode."""

import pytest
import torch
from device_process import run, start
from torch.testing import assert_close

DEVICE = "opennpu"


@pytest.fixture(autouse=True)
def counted():
    torch.opennpu.reset_fallbacks()
    yield
    torch.opennpu.set_strict(False)


@pytest.mark.filterwarnings("ignore:aten")
def test_results_and_counts():
    x = torch.randn(5, 6)
    assert_close(torch.cumprod(x.to(DEVICE), 1).cpu(), torch.cumprod(x, 1))
    torch.cumprod(x.to(DEVICE), 0)
    values, indices = x.to(DEVICE).mode(1)
    assert_close(values.cpu(), x.mode(1).values)
    assert indices.device.type == DEVICE
    assert torch.opennpu.fallbacks() == {"aten::cumprod": 2, "aten::mode": 1}
    assert "no lowering" in torch.opennpu.fallback_reasons()["aten::cumprod"]
    torch.opennpu.reset_fallbacks()
    assert torch.opennpu.fallbacks() == {}


@pytest.mark.filterwarnings("ignore:aten")
def test_in_place_out_and_lists():
    x = torch.randn(5, 6)
    y = x.to(DEVICE)
    y.cumprod_(1)
    assert_close(y.cpu(), x.cumprod(1))
    out = torch.empty(0, device=DEVICE)
    torch.cumprod(x.to(DEVICE), 1, out=out)
    assert_close(out.cpu(), x.cumprod(1))
    blocks = torch.block_diag(x.to(DEVICE), x.to(DEVICE))
    assert_close(blocks.cpu(), torch.block_diag(x, x))


@pytest.mark.filterwarnings("ignore:aten")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int16, torch.uint8], ids=str)
def test_dtypes_that_the_chip_does_not_have(dtype):
    x = torch.arange(6, dtype=dtype).reshape(2, 3)
    assert_close((x.to(DEVICE) + x.to(DEVICE)).cpu(), x + x)
    assert_close(x.to(DEVICE).float().cpu(), x.float())
    reasons = torch.opennpu.fallback_reasons()
    assert set(reasons) == {"aten::add", "aten::copy_"}
    assert all("the chip has no" in reason for reason in reasons.values())


def test_what_is_not_counted():
    """Nothing is computed from elements on the chip."""
    torch.manual_seed(0)
    x = torch.randn(4, 4, device=DEVICE)
    x.uniform_()
    torch.arange(10, device=DEVICE)
    torch.linspace(0, 1, 5, device=DEVICE)
    torch.eye(3, device=DEVICE)
    torch.randperm(5, device=DEVICE)
    x.sum().item()
    torch.empty(0, device=DEVICE).cumprod(0)
    assert torch.opennpu.fallbacks() == {}


def test_random_numbers_are_those_of_the_seed():
    torch.manual_seed(3)
    first = torch.randn(5, device=DEVICE).cpu()
    torch.manual_seed(3)
    assert torch.equal(torch.randn(5, device=DEVICE).cpu(), first)
    generator = torch.Generator(DEVICE).manual_seed(3)
    assert torch.equal(torch.randn(5, device=DEVICE, generator=generator).cpu(), first)
    assert not torch.equal(torch.randn(5, device=DEVICE).cpu(), first)


def test_strict():
    x = torch.randn(3, device=DEVICE)
    torch.opennpu.set_strict(True)
    assert torch.opennpu.is_strict()
    with pytest.raises(NotImplementedError, match=r"aten::cumprod does not run .* no lowering"):
        x.cumprod(0)
    with pytest.raises(NotImplementedError, match=r"aten::add .* the chip has no Double"):
        x.cpu().double().to(DEVICE) + 1
    torch.randn(3, device=DEVICE)
    assert torch.opennpu.fallbacks() == {}


def test_operators_whose_place_is_the_host():
    """Strict mode allows them, and they are counted apart."""
    x = torch.randn(4, 30)
    torch.opennpu.set_strict(True)
    y = x.to(DEVICE)
    assert torch.equal(y.sort(1).indices.cpu(), x.sort(1).indices)
    assert torch.equal(y.topk(20).values.cpu(), x.topk(20).values)
    assert torch.equal((y > 0).nonzero().cpu(), (x > 0).nonzero())
    assert torch.equal(y.masked_select(y > 0).cpu(), x.masked_select(x > 0))
    assert torch.equal((y * 2).int().unique().cpu(), (x * 2).int().unique())
    assert torch.opennpu.fallbacks() == {}
    calls = torch.opennpu.host_calls()
    assert calls == {f"aten::{name}": 1 for name in ("sort", "topk", "nonzero", "masked_select", "_unique2")}
    torch.opennpu.reset_fallbacks()
    assert torch.opennpu.host_calls() == {}


def test_strict_raises_before_it_computes():
    x = torch.full((3,), 0.5, device=DEVICE)
    torch.opennpu.set_strict(True)
    with pytest.raises(NotImplementedError, match="aten::erfinv does not run"):
        x.erfinv_()
    with pytest.raises(IndexError, match="Dimension out of range"):
        x.cumprod(2)
    torch.opennpu.set_strict(False)
    assert torch.equal(x.cpu(), torch.full((3,), 0.5))


def test_threads_ask_for_the_setting_at_once():
    """The first to ask reads the settings in Python, which the others' waiting must allow."""
    output = run("""
        import sys, threading, torch
        sys.setswitchinterval(1e-6)
        start = threading.Barrier(4)
        def ask():
            start.wait()
            torch.opennpu.set_strict(False)
            torch.opennpu.is_strict()
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        print("done")
    """)
    assert output.split() == ["done"]


def test_views_are_no_fallbacks():
    """The host could give a copy only."""
    library = torch.library.Library("opennpu_test", "DEF")
    library.define("whole(Tensor(a) x) -> Tensor(a)")
    library.impl("whole", lambda x: x[:], "CPU")
    with pytest.raises(NotImplementedError, match=r"opennpu_test::whole .* makes a view"):
        torch.ops.opennpu_test.whole(torch.ones(3, device=DEVICE))


def test_strict_by_the_environment():
    done = start("import torch; torch.ones(3, device='opennpu').cumprod(0)", OPENNPU_STRICT=1)
    assert "NotImplementedError: aten::cumprod" in done.stderr and "OPENNPU_STRICT" in done.stderr


def test_one_warning_a_name():
    output = run("""
        import torch, warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = torch.ones(3, device="opennpu")
            x.cumprod(0), x.cumprod(0), x.mode()
        for w in caught:
            print(str(w.message).partition(" ")[0])
    """)
    assert output.split() == ["aten::cumprod", "aten::mode"]


@pytest.mark.filterwarnings("ignore:aten")
def test_errors_are_pytorchs():
    with pytest.raises(IndexError, match="Dimension out of range"):
        torch.ones(3, device=DEVICE).cumprod(2)


@pytest.mark.filterwarnings("ignore:aten")
def test_convolutions():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    y = torch.nn.functional.conv2d(x.to(DEVICE), w.to(DEVICE), padding=1)
    assert_close(y.cpu(), torch.nn.functional.conv2d(x, w, padding=1))
    gradients = {}
    for device in ("cpu", DEVICE):
        leaves = [t.detach().to(device).requires_grad_() for t in (x, w, torch.zeros(4))]
        torch.nn.functional.conv2d(*leaves).square().sum().backward()
        gradients[device] = [t.grad.cpu() for t in leaves]
    # Sums over hundreds of products in another order.
    assert_close(gradients[DEVICE], gradients["cpu"], rtol=1e-4, atol=1e-4)
