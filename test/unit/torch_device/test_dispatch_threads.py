"""Operators from several threads, each on a stream of its own."""

import threading

import torch
from torch.testing import assert_close

DEVICE = "opennpu"
THREADS, ROUNDS = 2, 60


def in_threads(work) -> list:
    """work(number) in each thread at the same time; its results. Raises what a thread raised."""
    results, errors = [None] * THREADS, []
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            start.wait()
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def chain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Of kernels with and without workspace, whose temporaries are freed while they are in use."""
    for _ in range(ROUNDS):
        x = torch.softmax(x @ w + x * 0.5, -1)
    return x


def test_two_streams():
    """Memory that one stream has freed is not given to the other while it is in use."""
    operands = [(torch.randn(33 + 7 * i, 48), torch.randn(48, 48)) for i in range(THREADS)]

    def work(number: int) -> torch.Tensor:
        with torch.opennpu.stream(torch.opennpu.Stream()):
            return chain(*(t.to(DEVICE) for t in operands[number])).cpu()

    for (x, w), result in zip(operands, in_threads(work), strict=True):
        assert_close(result, chain(x, w))


def test_a_program_is_compiled_once(monkeypatch):
    """Whoever needs it first; the others wait for it."""
    from opennpu.runtime.torch_device import operators

    asked = []

    def counted(target, *args):
        asked.append(target)
        return compile_call(target, *args)

    compile_call = operators.compile_call
    monkeypatch.setattr(operators, "compile_call", counted)
    x = torch.randn(3, 5, 7, 2).to(DEVICE)

    def work(number: int) -> torch.Tensor:
        return x.transpose(0, 2)[:, 1:].flip(1).cpu()

    for result in in_threads(work):
        assert torch.equal(result, x.cpu().transpose(0, 2)[:, 1:].flip(1))
    assert asked.count("aten.flip") == 1


def test_compiling_is_apart_from_the_callers_state():
    """Modes of the calling thread do not reach into the compiler."""
    x = torch.randn(6, 3, 5, device=DEVICE)
    with torch.inference_mode(), torch.device(DEVICE):
        result = x.permute(2, 0, 1)[1:].amax((0, 2))
    assert torch.equal(result.cpu(), x.cpu().permute(2, 0, 1)[1:].amax((0, 2)))
