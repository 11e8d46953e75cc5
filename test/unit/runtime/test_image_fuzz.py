"""Damaged programs: an error or a result, never more than their own memory.

`runtime/fuzz/fuzz_image.cpp` does the same on a larger scale, under sanitizers.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builder import CHIP, copy_program
from opennpu.runtime.device import Device, NpuError

SEED = copy_program()
ROWS, ROW = 4, 64
EXPECTED = {"invalid_program", "wrong_chip", "trap", "timeout", "invalid_argument"}


class Bench:
    """A device with a source, a target, and memory around them that must stay as it is."""

    def __init__(self, engine: str):
        # One thread: what cores of a damaged program write at once is a race of ours as well.
        self.device = Device(CHIP, engine=engine, threads=1, hbm_bytes=1 << 20, max_instructions=1000)
        self.stream = self.device.stream()
        self.buffers = [self.device.alloc(ROWS * ROW) for _ in range(5)]
        self.untouched = [self.buffers[i] for i in (0, 1, 2, 4)]
        for i, buffer in enumerate(self.buffers):
            buffer.numpy()[:] = i + 1

    def run(self, data: bytes) -> None:
        try:
            program = self.device.load(data)
            whole = (0, ROWS * ROW)
            self.stream.launch(program, [(self.buffers[1], *whole), (self.buffers[3], *whole), ROWS])
            self.stream.synchronize()
        except NpuError as error:
            assert error.status in EXPECTED, error
            assert str(error)
        for buffer in self.untouched:
            assert np.all(buffer.numpy() == self.buffers.index(buffer) + 1)


BENCHES = {engine: Bench(engine) for engine in ("reference", "native")}

bit_flips = st.lists(st.integers(0, 8 * len(SEED) - 1), min_size=1, max_size=4)
words = st.lists(
    st.tuples(st.integers(6, len(SEED) // 8 - 3), st.integers(0, (1 << 64) - 1) | st.integers(0, 300)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("engine", BENCHES)
@settings(max_examples=300)
@given(flips=bit_flips)
def test_flipped_bits(engine, flips):
    data = np.frombuffer(SEED, np.uint8).copy()
    for bit in flips:
        data[bit // 8] ^= 1 << bit % 8
    BENCHES[engine].run(data.tobytes())


@pytest.mark.parametrize("engine", BENCHES)
@settings(max_examples=300)
@given(changes=words)
def test_replaced_words(engine, changes):
    data = bytearray(SEED)
    for at, word in changes:
        data[8 * at : 8 * at + 8] = word.to_bytes(8, "little")
    BENCHES[engine].run(bytes(data))


@pytest.mark.parametrize("engine", BENCHES)
def test_truncated(engine):
    for size in range(len(SEED)):
        with pytest.raises(NpuError):
            BENCHES[engine].device.load(SEED[:size])
