"""Types of command-line arguments."""

import argparse
from pathlib import Path


def output_file(text: str) -> Path:
    """A file that can be written: told before the work, not after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the directory {path.parent} does not exist")
    return path


def count(text: str) -> int:
    """A number of things, at least one."""
    value = int(text)
    if not 1 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not a count from 1 to {2**31 - 1}")
    return value


def seconds(text: str) -> float:
    """A time above 0."""
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no time in seconds")
    return value
