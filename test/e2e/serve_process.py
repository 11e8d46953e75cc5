"""One `npu-serve` in a process of its own, as a user starts it."""

import contextlib
import re
import signal
import sys
from pathlib import Path

from server_process import Server

CODE = "import sys; from opennpu.tools.npu_serve import main; sys.exit(main())"


class Serving(Server):
    """Its standard output and its log are one text."""

    def __init__(self, model: Path, folder: Path, *options: str, **environment: str):
        super().__init__(model, folder / "npu-serve.log")
        self.arguments, self.environment = options, environment

    def command(self) -> list[str]:
        return [sys.executable, "-c", CODE, str(self.model), "--port", str(self.port), *self.arguments]

    def is_ready(self) -> bool:
        return "npu-serve: ready" in self.log_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(90)

    def processes(self) -> dict[str, int]:
        """The server's processes by title; an ended one that nobody has waited for counts too."""
        server = _children(self.process.pid)
        return {_title(pid): pid for parent in server for pid in (parent, *_children(parent))}

    def shared_memory(self) -> set[str]:
        """Files of shared memory that they have mapped."""
        maps = (Path(f"/proc/{pid}/maps").read_text() for pid in self.processes().values())
        return {name for text in maps for name in re.findall(r"/dev/shm/\S+$", text, re.MULTILINE)}


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
