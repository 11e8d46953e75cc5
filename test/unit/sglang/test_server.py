"""What the server of npu-serve takes away at its end, and what not."""

import subprocess
import sys

import pytest
from opennpu.sglang_integration import server

MAPPED = {
    "models/sem.mp-a": False,
    "weights": False,
    "sem.mp-old": False,
    "sem.mp-new": True,
    "psm_new": True,
}
"""Files of shared memory → whether they go; those named `new` are made by the server."""

MAPPER = """
import mmap, pathlib, sys
files = [pathlib.Path(name) for name in sys.argv[1:]]
for file in files:
    if "new" in file.name:
        file.write_bytes(bytes(4096))
opened = [file.open("r+b") for file in files]
maps = [mmap.mmap(file.fileno(), 0) for file in opened]
print("The server is fired up and ready to roll!", file=sys.stderr, flush=True)
sys.stdin.read()
"""
"""In place of SGLang: it maps the files of its arguments."""


@pytest.fixture
def mapper(monkeypatch):
    start = subprocess.Popen

    def instead(command, **options):
        files = command[command.index(server.__name__) + 2 :]
        return start([sys.executable, "-c", MAPPER, *files], stdin=subprocess.PIPE, **options)

    monkeypatch.setattr(server.subprocess, "Popen", instead)


def test_only_what_servers_make_is_taken_away(mapper, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "SHARED_MEMORY", tmp_path)
    files = [tmp_path / name for name in MAPPED]
    for file in files:
        if "new" not in file.name:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(bytes(4096))
    unmapped = tmp_path / "sem.mp-unmapped"
    with server.Server([str(file) for file in files]) as running:
        unmapped.touch()  # another process's
        assert running.ready.wait(60)
        running.ready.clear()  # as at the last look before it
        assert running.wait(0.05) is None
        assert all(file.exists() for file in files)
    assert {file.relative_to(tmp_path).as_posix(): not file.exists() for file in files} == MAPPED
    assert unmapped.exists()


def test_it_ends_where_its_parent_has():
    """The parent's process id comes first; this one's parent is the test."""
    code = f"import {server.__name__} as s; s._end_with(%d); print('goes on')"
    for parent, output in (("__import__('os').getppid()", "goes on\n"), ("1", "")):
        command = [sys.executable, "-c", code.replace("%d", parent)]
        assert subprocess.run(command, capture_output=True, text=True).stdout == output
