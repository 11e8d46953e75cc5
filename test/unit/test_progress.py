"""The bar of a command's progress."""

import pytest
from opennpu.tools.progress import Progress


@pytest.mark.parametrize(("done", "total"), [(0, 0), (1 << 20, 2 << 20), (2 << 20, 2 << 20)])
def test_bytes_of_the_last_stage(done, total):
    """A program without weights writes none of none."""
    with Progress("npu-compile", ["load", "write"]) as progress:
        progress.stage("write")
        progress.bytes(done, total)
