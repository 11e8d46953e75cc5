"""Runs Python in a process of its own: for tests that need other settings, or that end the process."""

import os
import subprocess
import sys
import textwrap


def run(script: str, **settings: object) -> str:
    """What the script prints; `settings` are environment variables. Fails with its error output."""
    done = start(script, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(script: str, **settings: object) -> subprocess.CompletedProcess:
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
