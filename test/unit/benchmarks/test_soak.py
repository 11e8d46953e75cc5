"""The soak test's verdict: memory that grows is found, and a metric that is not there is no 0."""

import pytest
import soak

STEADY = [10, 12, 10, 11, 12, 10, 11, 10, 12, 11]


def samples(values: list[float]) -> list[soak.Sample]:
    return [soak.Sample(float(i), value, value, 0) for i, value in enumerate(values)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_steady_memory_does_not_grow(count):
    assert soak.growth_of(samples(STEADY[:count]), "resident") == 0.0


def test_growth_is_found():
    growing = [value + 5 * i for i, value in enumerate(STEADY)]
    assert soak.growth_of(samples(growing), "chip") > soak.MOST_GROWTH


def test_its_prompts_are_cut_from_a_text_that_is_there():
    assert soak.default_text().is_file()
