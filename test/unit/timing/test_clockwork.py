"""The event-driven model against a machine that is stepped cycle by cycle."""

from clockwork import Machine
from hypothesis import given, settings
from hypothesis import strategies as st
from micro import chip, fill, load, run, set_flag, wait_flag
from test_timing_properties import CHIPS, by_core, programs

# A transfer of the stepped machine leaves the rest of its last cycle unused, the fluid does not: a cycle or
# two for each of some twenty transfers at most, here of programs of hundreds of cycles.
RELATIVE, CYCLES = 0.01, 10


def test_it_counts_as_by_hand():
    body = [load(4096), set_flag("load", 0), wait_flag("vector", 0), fill(160)]
    assert Machine(chip(), body).run() == run(*body).cycles == 1 + 65 + 100 + 5 + 20
    assert Machine(chip(cores=2), [load(4096)]).run() == 1 + 130 + 100


@settings(max_examples=40)
@given(programs(), CHIPS)
def test_agrees_with_the_stepped_machine(body, on):
    stepped = Machine(on, body).run()
    assert abs(run(*body, on=on).cycles - stepped) <= max(CYCLES, RELATIVE * stepped)


def passed(first: str, then: str, flag: int):
    return set_flag(first, flag), wait_flag(then, flag)


def _grid_loads(kind: int, size: int):
    """On a grid of two rows of three cores."""
    return [
        [load(size, share=3, share_stride=1)],
        [load(size, share=2, share_stride=3)],
        [load(by_core(size))],
        [*passed("load", "vector", 0), fill(by_core(size)), *passed("vector", "load", 1)],
    ][kind]


@settings(max_examples=30)
@given(st.lists(st.builds(_grid_loads, st.integers(0, 3), st.integers(1, 2000)), min_size=2, max_size=12))
def test_agrees_where_rows_and_columns_share(steps):
    body, on = [each for step in steps for each in step], chip(cores=6)
    stepped = Machine(on, body).run()
    assert abs(run(*body, on=on).cycles - stepped) <= max(CYCLES, RELATIVE * stepped)
