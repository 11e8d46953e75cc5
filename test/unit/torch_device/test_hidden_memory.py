"""What moves data, again on a chip whose memory the host does not see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from device_process import start

HIDDEN = "OPENNPU_HOST_VISIBLE"
HERE = Path(__file__)
FILES = ["copies", "factories", "serialization"]  # the rest moves data by the same copies


@pytest.mark.skipif(os.environ.get(HIDDEN) == "0", reason="this is the run with hidden memory")
def test_with_hidden_memory():
    files = [HERE.with_name(f"test_{name}.py") for name in FILES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env=os.environ | {HIDDEN: "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_setting_hides_the_memory():
    done = start(
        """
        import torch
        from opennpu.runtime.device import Device
        torch.ones(2, device="opennpu")
        Device.from_torch().alloc(64).numpy()
        """,
        **{HIDDEN: 0},
    )
    assert "the host does not see this chip's memory" in done.stderr
