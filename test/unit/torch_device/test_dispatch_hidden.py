"""The same results on a chip whose memory the host does not see."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", ["test_dispatch.py", "test_fallback.py"])
def test_with_hidden_memory(file):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / file)]
    environment = os.environ | {"OPENNPU_HOST_VISIBLE": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
