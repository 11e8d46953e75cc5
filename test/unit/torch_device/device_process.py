"""Runs Python in a process of its own: for tests that need other settings, or that end the process.

The processes are forks of one that has imported PyTorch and has not used the device, which takes no time.
`fresh=True` starts Python anew, for tests of the import and of the interpreter's end.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path

PYTHON = [sys.executable, "-W", "ignore"]
SECONDS = 300


def run(script: str, fresh: bool = False, **settings: object) -> str:
    """What the script prints; `settings` are environment variables. Fails with its error output."""
    done = start(script, fresh, **settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(script: str, fresh: bool = False, **settings: object) -> subprocess.CompletedProcess:
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.py"  # a file, so that it can start processes of its own
        file.write_text(textwrap.dedent(script))
        if not fresh:
            return _fork(file, environment)
        return subprocess.run(
            [*PYTHON, file], env=environment, capture_output=True, text=True, timeout=SECONDS
        )


def _fork(file: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    streams = (file.with_name("stdout"), file.with_name("stderr"))
    process = context.Process(target=_child, args=(file, environment, streams))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{SECONDS} s were not enough")
    return subprocess.CompletedProcess(str(file), process.exitcode, *(s.read_text() for s in streams))


def _child(file: Path, environment: dict[str, str], streams: tuple[Path, Path]) -> None:
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    warnings.simplefilter("ignore")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(file)]
    runpy.run_path(str(file), run_name="__main__")
