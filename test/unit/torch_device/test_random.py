"""Random numbers: the devices' generators are the CPU's, seed by seed."""

import pytest
import torch


def test_the_same_seed_gives_the_same_numbers_as_on_the_cpu():
    torch.manual_seed(5)
    want = [torch.rand(4), torch.randn(3, 3), torch.randint(0, 9, (5,)), torch.randperm(7)]
    torch.manual_seed(5)
    got = [torch.rand(4, device="opennpu"), torch.randn(3, 3, device="opennpu")]
    got += [torch.randint(0, 9, (5,), device="opennpu"), torch.randperm(7, device="opennpu")]
    for a, b in zip(got, want, strict=True):
        assert a.is_opennpu and torch.equal(a.cpu(), b)


def test_the_devices_numbers_are_its_own():
    torch.manual_seed(1)
    want = torch.rand(2)
    torch.manual_seed(1)
    torch.rand(100, device="opennpu")
    assert torch.equal(torch.rand(2), want)
    torch.opennpu.manual_seed(1)
    assert torch.equal(torch.rand(2, device="opennpu").cpu(), want)
    assert torch.opennpu.initial_seed() == 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x.uniform_(),
        lambda x: x.normal_(),
        lambda x: x.bernoulli_(0.5),
        lambda x: torch.bernoulli(x / 2),
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: torch.multinomial(torch.ones(5).to(x.device), 3),
        lambda x: torch.rand_like(x),
        lambda x: x.exponential_(),
    ],
)
def test_every_kind_of_draw_follows_the_seed(draw):
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(draw(torch.ones(32, device="opennpu")).cpu())
    torch.manual_seed(3)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], draw(torch.ones(32)))
    assert not torch.equal(results[0], results[2])


def test_generators():
    a = torch.Generator(device="opennpu").manual_seed(11)
    assert a.device == torch.device("opennpu:0") and a.initial_seed() == 11
    first = torch.randn(5, device="opennpu", generator=a)
    state = a.get_state()
    second = torch.randn(5, device="opennpu", generator=a)
    a.set_state(state)
    assert torch.equal(torch.randn(5, device="opennpu", generator=a).cpu(), second.cpu())
    b = torch.Generator(device="opennpu")
    b.set_state(state)
    assert torch.equal(torch.randn(5, device="opennpu", generator=b).cpu(), second.cpu())
    c = a.clone_state()
    third = torch.randn(5, device="opennpu", generator=a).cpu()
    assert torch.equal(torch.randn(5, device="opennpu", generator=c).cpu(), third)
    assert torch.equal(first.cpu(), torch.randn(5, generator=torch.Generator().manual_seed(11)))
    assert a.seed() != 11


def test_states_and_forks():
    torch.opennpu.seed_all()
    state = torch.opennpu.get_rng_state()
    want = torch.rand(3, device="opennpu").cpu()
    torch.opennpu.set_rng_state(state)
    with torch.random.fork_rng(device_type="opennpu"):
        torch.opennpu.manual_seed_all(0)
        torch.rand(3, device="opennpu")
    assert torch.equal(torch.rand(3, device="opennpu").cpu(), want)
    states = torch.opennpu.get_rng_state_all()
    assert len(states) == torch.opennpu.device_count()
    torch.opennpu.set_rng_state_all(states)
    torch.opennpu.seed()
