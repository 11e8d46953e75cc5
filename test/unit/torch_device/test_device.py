"""Devices: what import does, which there are, which is current, and what goes wrong."""

from pathlib import Path

import pytest
import torch
from device_process import run, start
from opennpu.runtime.chip import Chip


def test_import_is_enough_and_opens_nothing():
    output = run(
        """
        import sys, torch
        assert torch.opennpu.is_available() and torch.opennpu.device_count() == 1
        assert torch.device("opennpu:0").type == "opennpu"
        torch.manual_seed(0)
        assert not torch.opennpu.is_initialized()
        heavy = [name for name in sys.modules if name.startswith(("opennpu.compiler.passes", "torch_mlir"))]
        assert not heavy, heavy
        torch.opennpu.init()
        print(torch.opennpu.is_initialized())
        """,
        fresh=True,
    )
    assert output == "True\n"


def test_import_survives_an_extension_that_cannot_be_loaded(tmp_path):
    extension = tmp_path / "_torch.so"
    extension.write_bytes(b"not an ELF file")
    output = run(
        f"""
        import sys, warnings
        from importlib.util import spec_from_file_location

        class Finder:
            def find_spec(name, path=None, target=None):
                if name == "opennpu.runtime._torch":
                    return spec_from_file_location(name, {str(extension)!r})

        sys.meta_path.insert(0, Finder)
        with warnings.catch_warnings(record=True, category=RuntimeWarning) as caught:
            warnings.simplefilter("always")
            import torch
        assert not hasattr(torch, "opennpu") and (torch.zeros(2) + 1).sum() == 2
        print(*[w.message for w in caught if "opennpu" in str(w.message)])
        """,
        fresh=True,
    )
    assert str(extension) in output and f"than {torch.__version__}: install OpenNPU again" in output


def test_import_survives_whatever_goes_wrong(monkeypatch):
    from opennpu.runtime import torch_autoload, torch_device

    def register():
        raise KeyError("what another PyTorch lacks")

    monkeypatch.setattr(torch_device, "register", register)
    monkeypatch.setattr(torch_autoload, "_declare_torchvision_operators", lambda torch: None)
    with pytest.warns(RuntimeWarning, match="no device opennpu.*KeyError: 'what another PyTorch lacks'"):
        torch_autoload.autoload()


def test_operators_that_this_pytorch_lacks_are_left_out(monkeypatch):
    from opennpu.runtime import _torch
    from opennpu.runtime.torch_device import native

    lines = []
    monkeypatch.setattr(_torch, "register_operators", lines.extend)
    monkeypatch.setattr(native, "UNARY", native.UNARY + " of_the_future")
    native.register()
    names = [name for name, _, _ in lines]
    assert "aten.relu" in names and "aten.of_the_future" not in names
    assert len(names) == len(native.aten_operators()) - 1 + len(native.own_operators()), "no other is missing"


def test_the_device_is_the_accelerator():
    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device("opennpu")
    assert torch.accelerator.device_count() == torch.opennpu.device_count() == 1
    assert torch.accelerator.current_device_index() == torch.opennpu.current_device() == 0
    torch.accelerator.synchronize()
    assert torch.get_device_module("opennpu") is torch.opennpu


@pytest.mark.parametrize("device", ["opennpu", "opennpu:0", torch.device("opennpu", 0)])
def test_tensors_say_where_they_are(device):
    x = torch.tensor([1.0, 2.0], device=device)
    assert x.device == torch.device("opennpu:0") and x.is_opennpu and x.get_device() == 0
    assert not torch.zeros(1).is_opennpu
    assert repr(x) == "tensor([1., 2.], device='opennpu:0')"
    assert torch.nn.Linear(2, 2).to(device).weight.device == x.device
    assert torch.nn.Linear(2, 2).opennpu().weight.is_opennpu and torch.zeros(2).opennpu().is_opennpu


def test_printing_needs_no_operator_of_the_device():
    torch.opennpu.synchronize()
    before = torch.opennpu.counters()
    assert "1.5000" in repr(torch.full((100, 100), 1.5).to("opennpu"))
    assert torch.opennpu.counters() == before


def test_properties_are_those_of_the_chip_file():
    chip, properties = Chip.load("npu1-lite"), torch.opennpu.get_device_properties()
    assert properties.name == torch.opennpu.get_device_name("opennpu:0") == chip.name
    assert properties.total_memory == chip.hbm_bytes == torch.opennpu.mem_get_info()[1]
    assert properties.multi_processor_count == chip.cores
    with pytest.raises(ValueError, match="no device opennpu:1"):
        torch.opennpu.get_device_properties(1)


def test_a_device_that_does_not_exist():
    with pytest.raises(ValueError, match="no device opennpu:1"):
        torch.opennpu.can_device_access_peer(0, 1)
    with pytest.raises(RuntimeError, match="no device 1"):
        torch.empty(1, device="opennpu:1")
    with pytest.raises(RuntimeError, match="no device 3"):
        torch.opennpu.set_device(3)
    with pytest.raises(ValueError, match="expected a device of type opennpu, got 'cpu'"):
        torch.opennpu.synchronize("cpu")


def test_two_devices():
    run(
        """
        import torch
        npu = torch.opennpu
        assert npu.device_count() == 2 and npu.current_device() == 0
        x = torch.arange(10.0, device="opennpu:1")
        assert x.device.index == 1 and npu.current_device() == 0
        with npu.device(1):
            assert npu.current_device() == 1 and torch.empty(1, device="opennpu").device.index == 1
            with npu.device_of(torch.empty(1, device="opennpu:0")):
                assert npu.current_device() == 0
            with npu.device_of(torch.empty(1)):
                assert npu.current_device() == 1
        assert npu.current_device() == 0
        npu.set_device("opennpu:1")
        assert torch.zeros(1, device="opennpu").device.index == 1 and npu.current_device() == 1
        y = x.to("opennpu:0")
        assert y.device.index == 0 and torch.equal(y.cpu(), torch.arange(10.0))
        y[::2].copy_(x[1::2])
        assert y.tolist() == [1, 1, 3, 3, 5, 5, 7, 7, 9, 9]
        assert npu.memory_allocated(0) and npu.memory_allocated(1)
        assert npu.current_stream(0).device_index == 0 and npu.current_stream().device_index == 1
        assert not npu.can_device_access_peer(0, 1) and len(npu.default_generators) == 2
        """,
        OPENNPU_DEVICES=2,
        OPENNPU_HBM_BYTES=1 << 26,
    )


def test_a_thread_has_its_own_current_device():
    run(
        """
        import threading, torch
        torch.opennpu.set_device(1)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(torch.opennpu.current_device()))
        thread.start(); thread.join()
        assert seen == [0] and torch.opennpu.current_device() == 1
        """,
        OPENNPU_DEVICES=2,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"OPENNPU_CHIP": "npu99"}, "npu99"),
        ({"OPENNPU_DEVICES": "many"}, "OPENNPU_DEVICES must be an integer from 1 to 64, not 'many'"),
        ({"OPENNPU_HBM_BYTES": "-1"}, "OPENNPU_HBM_BYTES must be an integer"),
        ({"OPENNPU_HOST_VISIBLE": "yes"}, "OPENNPU_HOST_VISIBLE must be 0 or 1, not 'yes'"),
        ({"OPENNPU_ENGINE": "quantum"}, 'no engine "quantum"'),
        ({"OPENNPU_DRIVER": "libm.so.6"}, "does not export npu_get_driver"),
    ],
)
def test_a_wrong_setting_is_reported_by_the_first_use(settings, message):
    done = start("import torch; print('imported'); torch.empty(1, device='opennpu')", **settings)
    assert done.stdout == "imported\n" and done.returncode == 1
    assert message in done.stderr


def test_settings_choose_chip_engine_and_memory():
    output = run(
        """
        import torch
        print(torch.opennpu.get_device_name(), torch.opennpu.mem_get_info()[1])
        assert torch.ones(2, device="opennpu").tolist() == [1, 1]
        """,
        OPENNPU_CHIP="npu1",
        OPENNPU_ENGINE="reference",
        OPENNPU_HBM_BYTES=1 << 26,
        OPENNPU_THREADS=1,
    )
    assert output == f"npu1 {1 << 26}\n"


def test_the_virtual_chip_as_a_library_of_a_vendor():
    from opennpu.runtime import _torch

    library = Path(_torch.__file__).parent / "libnpu_virtual.so"
    run("import torch; assert torch.ones(2, device='opennpu').tolist() == [1, 1]", OPENNPU_DRIVER=library)


def test_a_forked_child_gets_a_clear_error_and_ends_in_peace():
    """With all kinds of things of the device, which it drops."""
    output = run(
        """
        import gc, os, sys, torch
        x = torch.ones(2, device="opennpu")
        graph = torch.compile(lambda x: torch.relu(x) + 1, backend="opennpu")
        things = [graph(x), torch.opennpu.Stream().record_event(), torch.empty(4, pin_memory=True)]
        x.record_stream(torch.opennpu.Stream())
        child = os.fork()
        if child == 0:
            told = 0
            for use in (torch.opennpu.synchronize, lambda: x + 1, lambda: torch.ones(2, device="opennpu")):
                try:
                    use()
                except RuntimeError as error:
                    told += "forked child" in str(error) and "spawn" in str(error)
            assert told == 3 and torch.opennpu._is_in_bad_fork()
            torch.manual_seed(0)
            torch._dynamo.reset()
            del x, graph, things
            gc.collect()
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert x.tolist() == [1, 1]
        """,
        fresh=True,
    )
    assert output == "7\n"


def test_a_child_forked_before_the_first_use_may_use_the_device():
    output = run("""
        import os, torch
        child = os.fork()
        if child == 0:
            os._exit(int(torch.ones(5, device="opennpu").cpu().sum()))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert torch.ones(2, device="opennpu").tolist() == [1, 1]
    """)
    assert output == "5\n"
