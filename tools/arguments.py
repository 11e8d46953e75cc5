"""Types of command-line arguments."""

import argparse
from pathlib import Path


def output_file(text: str) -> Path:
    """A file that can be written: told before the work, not after it."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the directory {path.parent} does not exist")
    return path
