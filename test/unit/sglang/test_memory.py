"""What is said where a model does not fit into the chip's memory."""

import re

import pytest
import torch
from opennpu.sglang_integration import memory
from safetensors.torch import save_file

ELEMENTS = 1 << 20


@pytest.fixture
def model(tmp_path):
    save_file(
        {"a": torch.zeros(ELEMENTS // 2), "b": torch.zeros(2, ELEMENTS // 4)}, tmp_path / "m.safetensors"
    )
    return tmp_path


@pytest.fixture
def chip(monkeypatch):
    """Sets the bytes of the chip."""

    def capacity(count: int) -> None:
        monkeypatch.setattr(memory, "capacity", lambda: count)

    return capacity


@pytest.mark.parametrize(("dtype", "item"), [("bfloat16", 2), ("float32", 4)])
def test_weights_that_do_not_fit(model, chip, dtype, item):
    """The weights are the least, whatever the checkpoint's dtype; what is asked for is enough."""
    least = item * ELEMENTS / memory.STATIC
    chip(int(least) + 1)
    assert memory.problem(model, dtype) is None
    chip(int(least) - 1)
    text = memory.problem(model, dtype)
    assert f"take {item * ELEMENTS / 1e6:.1f} MB of chip memory or more" in text and "OPENNPU_CHIP" in text
    chip(int(re.search(r"Set OPENNPU_HBM_BYTES to (\d+) or more", text)[1]))
    assert memory.problem(model, dtype) is None


def test_no_room_for_pages(chip):
    """Of a chip with room the fraction is told, else the bytes that have room; both where both are short."""
    needed, fraction = 100 << 20, f"Set --mem-fraction-static to {memory.STATIC}"
    chip(needed * 10 // 9)
    text = memory.no_pages(needed, memory.STATIC)
    assert fraction not in text
    assert fraction in memory.no_pages(needed, 0.1)
    room = int(re.search(r"Set OPENNPU_HBM_BYTES to (\d+) or more", text)[1])
    assert memory.STATIC * room > 2 * needed
    chip(room)
    text = memory.no_pages(needed, 0.1)
    assert fraction in text and "OPENNPU_HBM_BYTES" not in text


def sizing(*texts: str):
    for text in texts:
        raise RuntimeError(text)
    return "a pool"


def test_other_failures_of_sizing_are_as_they_were():
    assert memory.configure(sizing) == "a pool"
    with pytest.raises(RuntimeError, match="something else"):
        memory.configure(sizing, "something else")


def test_a_model_without_safetensors_is_not_judged(tmp_path, chip):
    chip(1)
    assert memory.problem(tmp_path, "bfloat16") is None
