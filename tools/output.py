"""Text for people and pipes."""

import os
import sys
from pathlib import Path


def write_text(text: str, path: Path | None = None) -> None:
    """Writes to `path`, or to standard output, whose reader may have left (`… | head`). Raises OSError."""
    if path:
        path.write_text(text, encoding="utf-8")
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()


def discard_output() -> None:
    """After a BrokenPipeError: Python flushes once more when it exits; let that go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
