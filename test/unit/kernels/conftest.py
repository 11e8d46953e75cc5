"""Every kernel test runs twice: the tile code in numpy, and the program on the reference engine."""

import pytest
from tile_cases import Compiled, OnChip


@pytest.fixture(params=[Compiled, OnChip], ids=["tiles", "reference"])
def kernel_of(request):
    return request.param
