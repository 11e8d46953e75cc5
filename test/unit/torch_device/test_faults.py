"""The torch device when the driver fails: errors reach the caller, and the device stays as it was."""

import faulty_driver
import pytest
from device_process import run
from image_builder import image, op

PRELUDE = """
import gc, os, re, torch, warnings
import faulty_driver

warnings.simplefilter("ignore")
order, internal = faulty_driver.order, faulty_driver.STATUSES["internal"]
a = torch.arange(64.0).reshape(8, 8)
x, y = a.to("opennpu"), torch.eye(8).to("opennpu")
expected = torch.relu(a) @ a + a

def work():
    return (torch.relu(x) @ x + x).cpu()

def fails(text, call, kind=torch.AcceleratorError, message="injected"):
    faulty_driver.give(text)
    try:
        call()
    except kind as error:
        assert re.search(message, str(error)), error
        return error
    finally:
        faulty_driver.give("")
        try:
            torch.opennpu.synchronize()
        except torch.AcceleratorError:
            torch.opennpu.synchronize()
    raise AssertionError(f"no error: {text}")

torch.testing.assert_close(work(), expected)
before = torch.opennpu.memory_allocated()

def as_before():
    gc.collect()
    assert torch.opennpu.memory_allocated() == before, torch.opennpu.memory_summary()
    torch.testing.assert_close(work(), expected)
"""


def faulty(script: str, tmp_path, **settings: object) -> str:
    """What the script prints, in a process whose driver takes orders."""
    environment = faulty_driver.environment(tmp_path / "order") | settings
    path = ":".join(str(p) for p in faulty_driver.PATHS)
    return run(PRELUDE + script, fresh=True, PYTHONPATH=path, **environment)


def test_each_call_that_fails(tmp_path):
    faulty(
        """
def record_and_wait():
    stream, event = torch.opennpu.Stream(), torch.opennpu.Event(enable_timing=True)
    end = torch.opennpu.Event(enable_timing=True)
    event.record()
    with torch.opennpu.stream(stream):
        event.wait()
        work()
        end.record()
    end.synchronize()
    end.query()
    event.elapsed_time(end)

def new_program():
    torch.opennpu.synchronize()
    size = len(sizes) + 3
    sizes.append(size)
    return torch.cumsum(x[:, :size % 7 + 1], 1).sort(), torch.compile(lambda t: t.sin(), backend="opennpu")(x)

sizes = []
record_and_wait()
big = 1 << 24
calls = {
    "launch": work,
    "copy_to_host": work,
    "stream_synchronize": work,
    "copy_to_device": lambda: a.to("opennpu"),
    "copy_on_device": lambda: x.clone(),
    "memory_alloc": lambda: torch.empty(big, device="opennpu"),
    "memory_info": torch.opennpu.mem_get_info,
    "event_create": record_and_wait,
    "event_record": record_and_wait,
    "stream_wait_event": record_and_wait,
    "event_query": record_and_wait,
    "event_synchronize": record_and_wait,
    "event_elapsed": record_and_wait,
    "device_synchronize": torch.opennpu.synchronize,
    "device_counters": torch.opennpu.counters,
    "device_reset_counters": torch.opennpu.reset_counters,
    "program_load": new_program,
}
for function, call in calls.items():
    error = fails(order(function), call)
    assert error.error_code == internal, function
    del error
    as_before()
""",
        tmp_path,
    )


def test_memory_that_the_chip_does_not_have(tmp_path):
    """As PyTorch's own error, from the chip and from the driver."""
    faulty(
        """
too_much = "Tried to allocate 16.00 GiB"
fails("", lambda: torch.empty(1 << 32, device="opennpu"), torch.OutOfMemoryError, too_much)
as_before()
fails(order("launch", "out_of_memory"), work, torch.OutOfMemoryError)
as_before()
torch.opennpu.empty_cache()
faulty_driver.give(order("memory_alloc", "out_of_memory"))
assert torch.empty(1 << 22, device="opennpu").nbytes == 1 << 24  # tried again, with the cache given back
as_before()
""",
        tmp_path,
        OPENNPU_HBM_BYTES=1 << 30,
    )


def test_a_launch_that_traps_or_never_ends(tmp_path):
    """Its error comes with the synchronisation and names the instruction; results of it are never seen."""
    trap, endless = tmp_path / "trap", tmp_path / "endless"
    trap.write_bytes(image(op("s_mov", rd=2, a=64), op("s_ld", rd=3), locs=("layers.0.mlp at model.py:7",)))
    endless.write_bytes(
        image(op("loop", rd=2, hi=1 << 60, step=1), op("end_loop"), locs=("layers.1.mlp at model.py:9",))
    )
    faulty(
        f"""
place = "layers.0.mlp at model.py:7 on core 0: read of"
limit = "layers.1.mlp at model.py:9 on core 0: the launch ran past the limit of 2000 milliseconds"
for path, status, message in (("{trap}", "trap", place), ("{endless}", "timeout", limit)):
    error = fails(order("launch", call=1, what=f"run {{path}}"), work, message=message)
    assert error.error_code == faulty_driver.STATUSES[status]
    del error
    as_before()

    def on_another_stream():
        side = torch.opennpu.Stream()
        with torch.opennpu.stream(side):
            z = torch.relu(x)
        torch.opennpu.current_stream().wait_stream(side)
        return z.cpu()

    fails(order("launch", call=1, what=f"run {{path}}"), on_another_stream, message=message)
    as_before()
""",
        tmp_path,
        OPENNPU_LAUNCH_LIMIT=2,  # seconds, of which a launch that ends needs some millionths
        OPENNPU_THREADS=1,  # it waits for no other thread to be scheduled
    )


def test_a_wrong_limit_is_told():
    for text in ("-1", "soon", "nan"):
        script = """
import torch
try:
    torch.ones(1, device="opennpu")
except ValueError as error:
    print(error)
"""
        assert run(script, OPENNPU_LAUNCH_LIMIT=text) == (
            f"OPENNPU_LAUNCH_LIMIT must be a number of seconds, not '{text}'\n"
        )


@pytest.fixture(autouse=True, scope="module")
def built():
    faulty_driver.library()
