"""Tensors that leave the process or the library: files, pickles, other processes, DLPack."""

import copy
import io
import pickle

import pytest
import torch
from device_process import run, start


def saved(value) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("map_location", [None, "opennpu", "opennpu:0", "cpu", torch.device("opennpu:0")])
def test_save_and_load(map_location):
    x = torch.arange(24.0).reshape(4, 6).to("opennpu")
    loaded = torch.load(saved({"x": x, "part": x[1:, ::2]}), map_location=map_location)
    device = torch.device("cpu" if map_location == "cpu" else "opennpu:0")
    assert loaded["x"].device == loaded["part"].device == device
    assert torch.equal(loaded["x"].cpu(), x.cpu()) and torch.equal(loaded["part"].cpu(), x[1:, ::2].cpu())
    loaded["x"].fill_(1)
    assert loaded["part"].cpu().eq(1).all(), "tensors that shared memory share it again"


def test_a_file_of_the_cpu_loads_onto_the_device():
    state = torch.nn.Linear(3, 2).state_dict()
    loaded = torch.load(saved(state), map_location="opennpu")
    assert all(loaded[name].is_opennpu and torch.equal(loaded[name].cpu(), state[name]) for name in state)


def test_a_file_from_a_device_that_is_not_here(tmp_path):
    path = tmp_path / "x.pt"
    run(f"import torch; torch.save(torch.ones(2, device='opennpu:1'), {str(path)!r})", OPENNPU_DEVICES=2)
    with pytest.raises(RuntimeError, match="device 1 but"):
        torch.load(path)
    assert torch.load(path, map_location={"opennpu:1": "opennpu:0"}).tolist() == [1, 1]
    without = start(
        f"import torch; torch.load({str(path)!r}, map_location='cpu')",
        fresh=True,
        TORCH_DEVICE_BACKEND_AUTOLOAD=0,
    )
    assert without.returncode == 0, "a machine without the device reads the file"


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(6.0).to("opennpu"),
        lambda: torch.arange(6).to("opennpu")[::2],
        lambda: torch.empty(0, 3, device="opennpu"),
        lambda: torch.nn.Parameter(torch.ones(3, device="opennpu")),
        lambda: torch.ones(2, dtype=torch.bfloat16, device="opennpu"),
    ],
)
def test_copies_are_equal_and_apart(twin, make):
    x = make()
    y = twin(x)
    assert type(y) is type(x) and y.device == x.device and y.dtype == x.dtype
    assert y.requires_grad == x.requires_grad and y.stride() == x.stride()
    assert torch.equal(y.detach().cpu(), x.detach().cpu())
    assert x.numel() == 0 or y.data_ptr() != x.data_ptr()


def test_a_module_is_copied_with_its_weights():
    model = torch.nn.Linear(3, 2).to("opennpu")
    twin = copy.deepcopy(model)
    assert twin.weight.is_opennpu and torch.equal(twin.weight.cpu(), model.weight.cpu())


def test_to_another_process_and_back():
    run("""
        import torch
        import torch.multiprocessing as mp

        def answer(inbox, outbox):
            x = inbox.get()
            assert x.is_opennpu
            outbox.put((x.cpu() * 2).to("opennpu"))
            inbox.get()  # keeps this process alive until its tensor has been read

        if __name__ == "__main__":
            context = mp.get_context("spawn")
            inbox, outbox = context.Queue(), context.Queue()
            process = context.Process(target=answer, args=(inbox, outbox))
            process.start()
            inbox.put(torch.arange(5.0).to("opennpu")[1:])
            result = outbox.get(timeout=60)
            assert result.is_opennpu and result.tolist() == [2, 4, 6, 8], result
            inbox.put(None)
            process.join(60)
            assert process.exitcode == 0
    """)


def test_dlpack():
    from torch.utils.dlpack import DLDeviceType, from_dlpack, to_dlpack

    x = torch.arange(12.0).reshape(3, 4).to("opennpu")
    assert x.__dlpack_device__() == (DLDeviceType.kDLExtDev, 0)
    assert torch.zeros(1).__dlpack_device__() == (DLDeviceType.kDLCPU, 0)
    for y in (torch.from_dlpack(x), from_dlpack(to_dlpack(x)), torch.from_dlpack(x.t()[1:])):
        assert y.device == x.device and y.untyped_storage().device == x.device
    y = torch.from_dlpack(x[1:, ::2])
    assert torch.equal(y.cpu(), x[1:, ::2].cpu()) and y.data_ptr() == x[1:].data_ptr()
    x.zero_()
    assert not y.cpu().any(), "the memory is shared"
    del x
    assert y.shape == (2, 2) and not y.cpu().any(), "and kept"
    with pytest.raises((RuntimeError, TypeError, BufferError)):
        y.numpy()
