"""SGLang's HTTP server as a process that leaves nothing behind. Only that process imports SGLang."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

REFUSED = 2
"""Exit code of a server whose arguments were refused; the reason has been told."""

QUIET = ("Only CUDA", "Triton is not supported", "resource_tracker:")
"""Beginnings of warnings that tell nothing: of absent accelerators, and of what `Server` cleans up."""

SHARED_MEMORY = Path("/dev/shm")
MADE_BY_SERVERS = ("sem.mp-", "psm_", "torch_", "sglang_")
"""Beginnings of names of shared memory: Python's multiprocessing, PyTorch, SGLang."""

READY = "The server is fired up and ready to roll!"
KILLED = re.compile(r"Subprocess (\w+?)_\d+ \(pid=(\d+)\) crashed with exit code (-?\d+)")
FAILED = re.compile(r"(?:\[[^\]]*\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)")


class Server:
    """The process tree of `python -m sglang.launch_server`, for `with`; its log goes to standard error.

    It has a session and a temporary folder of its own. After the `with`, its processes, files and shared
    memory are gone, even where SGLang's processes were killed and could not clean up.
    """

    def __init__(self, arguments: Sequence[str]):
        self.ready = threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="npu-serve-")
        self._others_memory = set(SHARED_MEMORY.glob("*"))
        self._shared_memory: set[Path] = set()
        self._lines: deque[str] = deque(maxlen=2000)  # the last of the log
        warnings = [f"ignore:{text}:UserWarning" for text in QUIET]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), *arguments],
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ
            | {"SGLANG_PLATFORM": "opennpu", "TMPDIR": self._folder.name}
            | {"PYTHONWARNINGS": ",".join([*warnings, *filter(None, [os.environ.get("PYTHONWARNINGS")])])},
        )
        self._copier = threading.Thread(target=self._copy, daemon=True)
        self._copier.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exception) -> None:
        self.kill()
        self._process.wait()
        self._copier.join(timeout=5)
        for file in self._shared_memory:
            file.unlink(missing_ok=True)
        self._folder.cleanup()

    def wait(self, seconds: float) -> int | None:
        """The exit code, negative for a signal; None after `seconds`."""
        was_ready = self.ready.is_set()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if not was_ready:  # all of it is made before the server is ready
                self._shared_memory |= made_by_servers(self._mapped()) - self._others_memory
            return None

    def signal(self, number: int) -> None:
        """SIGTERM and SIGINT end the server once the requests that it has are answered."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Every process of the server, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def reason(self) -> str:
        """Why it ended, as far as its log tells."""
        self._copier.join(timeout=5)
        for line in self._lines:
            if found := KILLED.search(line):
                name, pid, code = found[1], found[2], int(found[3])
                how = (
                    f"was killed ({signal.Signals(-code).name})"
                    if code < 0
                    else f"ended with exit code {code}"
                )
                return f"its {name} process {pid} {how}"
        failures = [found[1] for line in self._lines if (found := FAILED.fullmatch(line))]
        return failures[-1] if failures else f"exit code {self._process.returncode}"

    def _copy(self) -> None:
        for line in self._process.stderr:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
            self._lines.append(line.decode(errors="replace").rstrip("\n"))
            if READY in self._lines[-1]:
                self.ready.set()

    def _mapped(self) -> set[Path]:
        """Files of shared memory that a process of the session has mapped."""
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may have ended
                if os.getsid(int(folder.name)) == self._process.pid:
                    maps = (folder / "maps").read_text()
                    found |= set(re.findall(rf"{SHARED_MEMORY}/\S+$", maps, re.MULTILINE))
        return {Path(name) for name in found}


def made_by_servers(files: set[Path]) -> set[Path]:
    """Without what else a process may have mapped, such as a user's model below /dev/shm."""
    return {file for file in files if file.parent == SHARED_MEMORY and file.name.startswith(MADE_BY_SERVERS)}


def main() -> None:
    """`python -m sglang.launch_server`, with its arguments checked first; argument 1 is the parent's pid."""
    _end_with(parent=int(sys.argv.pop(1)))
    from sglang.launch_server import kill_process_tree, load_plugins, prepare_server_args, run_server

    load_plugins()
    server_args = prepare_server_args(sys.argv[1:])
    try:
        server_args.resolve_once()
    except (ValueError, NotImplementedError) as error:
        print(f"npu-serve: error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def _end_with(parent: int) -> None:
    """Kills this process when its parent ends, or has ended."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(REFUSED)


if __name__ == "__main__":
    main()
