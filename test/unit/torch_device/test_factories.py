"""Making tensors, looking at them in another way, resizing them, changing what they refer to."""

import pytest
import torch


def test_empty():
    x = torch.empty(2, 3, 4, 5, device="opennpu", memory_format=torch.channels_last)
    assert x.stride() == (60, 1, 15, 3) and x.dtype == torch.float32
    x = torch.empty_strided((3, 2), (1, 4), dtype=torch.bfloat16, device="opennpu")
    assert x.stride() == (1, 4) and x.untyped_storage().nbytes() == 14
    with torch.device("opennpu"):
        assert torch.empty(3).is_opennpu
    assert x.new_empty(5).is_opennpu and torch.empty_like(x).stride() == torch.empty_like(x.cpu()).stride()


@pytest.mark.parametrize(
    "make",
    [
        lambda d: torch.zeros(3, 2, device=d),
        lambda d: torch.ones(3, dtype=torch.int64, device=d),
        lambda d: torch.full((2, 2), 7, device=d),
        lambda d: torch.arange(2, 20, 3, device=d),
        lambda d: torch.linspace(0, 1, 7, device=d),
        lambda d: torch.eye(3, device=d),
        lambda d: torch.tensor([[1, 2], [3, 4]], device=d),
        lambda d: torch.tril(torch.ones(3, 3, device=d)),
    ],
)
def test_factories(make):
    got, want = make("opennpu"), make("cpu")
    assert got.is_opennpu and got.dtype == want.dtype
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=0)


def test_views_share_memory():
    host = torch.arange(24.0).reshape(2, 3, 4)
    x = host.to("opennpu")
    views = {
        "view": lambda t: t.view(6, 4),
        "dtype": lambda t: t.view(torch.int32),
        "permute": lambda t: t.permute(2, 0, 1),
        "select": lambda t: t[1, :, 2],
        "slice": lambda t: t[:, ::2, 1:],
        "unfold": lambda t: t.unfold(2, 2, 1),
        "as_strided": lambda t: t.as_strided((3, 2), (2, 1), 5),
        "diagonal": lambda t: t.diagonal(0, 1, 2),
        "unsqueeze": lambda t: t.unsqueeze(1),
        "split": lambda t: t.split(2, 2)[1],
        "detach": lambda t: t.detach(),
        "alias": lambda t: torch.ops.aten.alias(t),
    }
    for name, view in views.items():
        got, want = view(x), view(host)
        assert (got.shape, got.stride()) == (want.shape, want.stride()), name
        assert got.data_ptr() - x.data_ptr() == want.data_ptr() - host.data_ptr(), name
        assert torch.equal(got.cpu(), want), name
    x.view(-1)[5:7] = torch.tensor([100.0, 200.0])
    assert x[0, 1, 1:3].tolist() == [100, 200]
    assert torch.view_as_complex(x.view(12, 2)).cpu()[3] == 200 + 7j
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        x.transpose(0, 1).view(-1)


def test_resize_keeps_the_contents():
    x = torch.arange(6).to("opennpu")
    x.resize_(2, 5)
    assert x.shape == (2, 5) and x.view(-1)[:6].tolist() == list(range(6))
    address = x.data_ptr()
    x.resize_(3)
    assert x.tolist() == [0, 1, 2] and x.data_ptr() == address
    x.resize_(0)
    assert x.numel() == 0
    y = torch.empty(0, device="opennpu").resize_(1, 2, 3, 4, memory_format=torch.channels_last)
    assert y.is_contiguous(memory_format=torch.channels_last)
    z = torch.arange(4.0).to("opennpu")[2:]
    z.resize_(9)
    assert z[:2].tolist() == [2, 3] and z.storage_offset() == 2


def test_out_arguments_are_resized():
    out = torch.empty(0, device="opennpu")
    torch.nonzero(torch.tensor([0, 1, 1]).to("opennpu"), out=(out := out.long()))
    assert out.tolist() == [[1], [2]]


def test_set_():
    x, y = torch.arange(6).to("opennpu"), torch.empty(0, dtype=torch.int64, device="opennpu")
    y.set_(x)
    assert y.is_set_to(x) and y.data_ptr() == x.data_ptr()
    y.set_(x.untyped_storage(), 1, (2, 2), (2, 1))
    assert y.tolist() == [[1, 2], [3, 4]] and not y.is_set_to(x)
    y.set_(x.untyped_storage())
    assert y.tolist() == list(range(6))
    y.set_(x.untyped_storage(), 4, (4,))
    assert x.untyped_storage().nbytes() == 64, "the storage grew"
    y.set_()
    assert y.shape == (0,)
    x.data = torch.zeros(2, dtype=torch.int64, device="opennpu")
    assert x.tolist() == [0, 0]


def test_storages():
    x = torch.arange(8, dtype=torch.uint8).to("opennpu")
    storage = x.untyped_storage()
    assert storage.device == x.device and storage.is_opennpu and len(storage) == 8
    assert storage[3] == 3 and list(storage)[:3] == [0, 1, 2] and storage.tolist() == x.tolist()
    storage[1] = 9
    assert x[1].item() == 9
    storage.resize_(16)
    assert storage.nbytes() == 16 and x.tolist() == [0, 9, 2, 3, 4, 5, 6, 7]
    copy = torch.UntypedStorage(16, device="opennpu").copy_(storage)
    assert copy.tolist()[:8] == x.tolist() and storage.cpu().tolist()[:8] == x.tolist()
    assert storage.clone().data_ptr() != storage.data_ptr()
    storage.fill_(3)
    assert x.tolist() == [3] * 8
    assert torch.UntypedStorage(4).opennpu().is_opennpu
    assert storage.type() == "torch.storage.UntypedStorage"


def test_modules_and_gradients():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).to("opennpu")
    x = torch.ones(5, 4, device="opennpu", requires_grad=True)
    model(x).sum().backward()
    host = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    host.load_state_dict(model.state_dict())
    y = torch.ones(5, 4, requires_grad=True)
    host(y).sum().backward()
    torch.testing.assert_close(x.grad.cpu(), y.grad)  # f32 products of 5 terms: PyTorch's defaults
    for a, b in zip(model.parameters(), host.parameters(), strict=True):
        assert a.grad.is_opennpu
        torch.testing.assert_close(a.grad.cpu(), b.grad)
    assert all(p.device.type == "cpu" for p in model.cpu().parameters())


def test_complex_numbers_are_seen_as_real_ones():
    x = torch.zeros(3, dtype=torch.complex64, device="opennpu")
    parts = torch.view_as_real(x)
    parts[:, 1] = 2.0
    assert torch.equal(x.cpu(), torch.full((3,), 2j))
    assert torch.view_as_complex(parts).data_ptr() == x.data_ptr()
