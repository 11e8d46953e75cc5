"""Copies against the same copies on the CPU: between host and device, and on the device."""

import itertools

import pytest
import torch

DTYPES = [
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def numbers(*shape: int, dtype=torch.float32) -> torch.Tensor:
    """Whole numbers from 0 to 100, which every dtype holds but bool."""
    return torch.randint(0, 101, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every other": lambda x: x[:, ::2],
    "a column": lambda x: x[..., 1],
    "repeated": lambda x: x[:1].expand(6, *x.shape[1:]),
    "one element": lambda x: x[1, 2, 3, 1],
    "nothing": lambda x: x[:, 2:2],
    "an offset": lambda x: x[1:, 1:],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_there_and_back(dtype, layout):
    host = numbers(2, 6, 4, 5, dtype=dtype)
    want = LAYOUTS[layout](host)
    assert torch.equal(LAYOUTS[layout](host.to("opennpu")).cpu(), want)
    there = want.to("opennpu")
    assert there.stride() == want.to("cpu", copy=True).stride()
    assert torch.equal(there.cpu(), want)


@pytest.mark.parametrize(("to", "source"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_between_layouts(to, source):
    """To host and device, from host and device; what lies between the elements stays."""
    if to == "repeated":
        pytest.skip("its elements share memory: not to be written to")
    base, values = numbers(2, 6, 4, 5), numbers(2, 6, 4, 5) + 200
    want = base.clone(memory_format=torch.preserve_format)
    view = LAYOUTS[to](want)
    given = LAYOUTS[source](values)
    if given.shape != view.shape:
        given = values[:1, :1, :1, :1].squeeze().expand(view.shape)
    view.copy_(given)
    for device, other in (("opennpu", "cpu"), ("cpu", "opennpu"), ("opennpu", "opennpu")):
        got = base.to(device, copy=True)
        LAYOUTS[to](got).copy_(given.to(other))
        if to == "channels last":  # makes a copy
            continue
        assert torch.equal(got.cpu(), want), (device, other)


@pytest.mark.parametrize(("source", "target"), list(itertools.product(DTYPES, DTYPES)), ids=str)
def test_casts(source, target):
    if source.is_complex and not target.is_complex:
        pytest.skip("PyTorch warns and drops the imaginary part")
    host = numbers(3, 5, dtype=source)
    want = host.to(target)
    x = host.to("opennpu")
    assert torch.equal(host.to("opennpu", target).cpu(), want)
    assert torch.equal(x.to(target).cpu(), want)
    assert torch.equal(torch.empty(3, 5, dtype=target).copy_(x), want)
    assert torch.equal(torch.empty(3, 5, dtype=target, device="opennpu").copy_(host).cpu(), want)


@pytest.mark.parametrize("non_blocking", [False, True])
@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("elements", [5, 1_000_000])
def test_the_source_may_change_after_an_upload(elements, pinned, non_blocking):
    """At once, but for a non-blocking copy from pinned memory: when its stream has got there."""
    pair = torch.empty(2, 32 << 20, dtype=torch.uint8, device="opennpu")
    pair[0].copy_(pair[1])  # what the uploads come behind
    host = torch.arange(elements).pin_memory() if pinned else torch.arange(elements)
    targets = [torch.empty(elements, dtype=torch.int64, device="opennpu") for _ in range(5)]
    for target in targets:
        target.copy_(host, non_blocking=non_blocking)
        if pinned and non_blocking:
            torch.opennpu.current_stream().synchronize()
        host.add_(1)
    for i, target in enumerate(targets):
        assert torch.equal(target.cpu(), torch.arange(elements) + i)


def test_a_download_to_pageable_memory_is_there_at_once():
    x = torch.arange(1_000_000).to("opennpu")
    host = torch.zeros(1_000_000, dtype=torch.int64)
    host.copy_(x, non_blocking=True)
    assert torch.equal(host, torch.arange(1_000_000))


def test_to_the_host_without_blocking_is_pinned():
    """PyTorch chooses so; the caller waits."""
    x = torch.arange(1_000_000).to("opennpu")
    host = x.to("cpu", non_blocking=True)
    assert host.is_pinned()
    torch.opennpu.synchronize()
    assert torch.equal(host, torch.arange(1_000_000))


def test_a_download_to_pinned_memory_is_there_after_the_stream():
    x = torch.arange(1_000_000).to("opennpu")
    host = torch.zeros(1_000_000, dtype=torch.int64, pin_memory=True)
    host.copy_(x, non_blocking=True)
    torch.opennpu.current_stream().synchronize()
    assert torch.equal(host, torch.arange(1_000_000))


def test_pinned_memory():
    x = torch.zeros(1000).pin_memory()
    assert x.is_pinned() and x[10:].is_pinned() and x.device.type == "cpu"
    assert not torch.zeros(1000).is_pinned()
    assert torch.empty(4, pin_memory=True).is_pinned() and torch.empty(0, pin_memory=True).numel() == 0
    loader = torch.utils.data.DataLoader(torch.arange(12.0), batch_size=4, pin_memory=True)
    assert [batch.is_pinned() for batch in loader] == [True] * 3
    with pytest.raises(RuntimeError, match="only tensors of the CPU can be pinned"):
        torch.empty(4, pin_memory=True, device="opennpu")


def test_pinned_memory_is_not_given_out_while_a_copy_reads_it():
    """The tensor is dropped with its copy still queued behind others; new ones must not overwrite it."""
    side = torch.opennpu.Stream()
    target = torch.empty(1_000_000, dtype=torch.int64, device="opennpu")
    with torch.opennpu.stream(side):
        pair = torch.empty(2, 32 << 20, dtype=torch.uint8, device="opennpu")
        for _ in range(20):
            pair[0].copy_(pair[1])
        host = torch.arange(1_000_000).pin_memory()
        target.copy_(host, non_blocking=True)
    assert not side.query()
    del host
    torch.zeros(1_000_000, dtype=torch.int64).pin_memory()
    side.synchronize()
    assert torch.equal(target.cpu(), torch.arange(1_000_000))
    torch.opennpu.empty_host_cache()


def test_lazy_conjugates_and_negatives():
    host = torch.complex(numbers(4, 3), numbers(4, 3) + 1)
    x = host.to("opennpu")
    assert torch.equal(x.conj().cpu(), host.conj())
    assert torch.equal(host.conj().to("opennpu").cpu(), host.conj())
    assert torch.equal(x.conj().clone().cpu(), host.conj())
    assert torch.equal(x.conj().imag.cpu(), host.conj().imag)
    assert torch.equal(x.conj().imag.clone().cpu(), host.conj().imag)
    y = torch.zeros_like(x)
    y.conj().copy_(x)
    assert torch.equal(y.cpu(), host.conj().resolve_conj())


@pytest.mark.parametrize("device", ["cpu", "opennpu"])
def test_overlapping_source_and_target(device):
    x = torch.arange(100).to(device)
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        x[1:].copy_(x[:-1])
    x.copy_(x)
    assert torch.equal(x.cpu(), torch.arange(100))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_items(dtype):
    host = numbers(3, dtype=dtype)
    x = host.to("opennpu")
    assert [x[i].item() for i in range(3)] == x.tolist() == host.tolist()
    assert type(x[0].item()) is type(host[0].item())


def test_shapes_that_do_not_fit():
    with pytest.raises(RuntimeError):
        torch.zeros(3, device="opennpu").copy_(torch.zeros(4))
    with pytest.raises(RuntimeError):
        torch.zeros(3).copy_(torch.zeros(4, device="opennpu"))
