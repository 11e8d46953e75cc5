"""One `npu-serve` in a process of its own, as a user starts it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CODE = "import sys; from opennpu.tools.npu_serve import main; sys.exit(main())"


class Serving:
    """Its address, its process, and what it has written so far."""

    def __init__(self, model: Path, *options: str, **environment: str):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.output, self.log = "", ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(model), "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | environment,
        )
        self.ready = threading.Event()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._out, self._err)]
        for reader in self._readers:
            reader.start()

    def wait_until_ready(self) -> None:
        self.ready.wait(300)
        assert self.ready.is_set() and self.process.poll() is None, self.log[-6000:]

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 90) -> int:
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return code

    def processes(self) -> dict[str, int]:
        """The server's processes by title; an ended one that nobody has waited for counts too."""
        server = _children(self.process.pid)
        return {_title(pid): pid for parent in server for pid in (parent, *_children(parent))}

    def shared_memory(self) -> set[str]:
        """Files of shared memory that they have mapped."""
        maps = (Path(f"/proc/{pid}/maps").read_text() for pid in self.processes().values())
        return {name for text in maps for name in re.findall(r"/dev/shm/\S+$", text, re.MULTILINE)}

    def _out(self) -> None:
        for line in self.process.stdout:
            self.output += line
            if "npu-serve: ready" in line:
                self.ready.set()
        self.ready.set()

    def _err(self) -> None:
        for line in self.process.stderr:
            self.log += line


@contextlib.contextmanager
def serving(model: Path, *options: str, **environment: str) -> Iterator[Serving]:
    """A server that is ready; it is killed at the end where it has not ended."""
    started = Serving(model, *options, **environment)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.process.kill()  # the server dies with it
        started.wait()


def runs(pid: int) -> bool:
    """Whether the process is there, and has not ended without anybody waiting for it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() + f" {pid}"
    return f"gone {pid}"
