"""Runs Python in a process of its own: for tests that need other settings, or that end the process."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path


def run(script: str, **settings: object) -> str:
    """What the script prints; `settings` are environment variables. Fails with its error output."""
    done = start(script, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(script: str, **settings: object) -> subprocess.CompletedProcess:
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.py"  # a file, so that it can start processes of its own
        file.write_text(textwrap.dedent(script))
        command = [sys.executable, "-W", "ignore", file]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
