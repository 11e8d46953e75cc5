"""Runs a command with the package's extensions built under a sanitizer; Python and PyTorch are as they are.

`watched.py [--target NAME]… address|thread COMMAND…` builds in build/sanitize-…, the targets named beside
the extension `_core` and the driver library, and runs the command with that package in front of the installed
one.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PACKAGES = ("compiler", "dialects", "sglang_integration", "tools")

SITE = """# An editable install finds the package by a finder of its own, ahead of the path.
import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "_opennpu_editable"]
"""


@dataclass(frozen=True)
class Sanitizer:
    flags: str  # of the compiler
    libraries: tuple[str, ...]  # loaded ahead of Python, which is not linked with them
    options: dict[str, str]  # environment; reports go to files, as pytest keeps what tests print
    prefix: tuple[str, ...] = ()


SANITIZERS = {
    "address": Sanitizer(
        "address,undefined",
        ("libasan.so", "libstdc++.so"),  # the latter: exceptions are intercepted from the start
        # What Python and its libraries keep until the end is no leak of ours; fuzz_image looks for those.
        {"ASAN_OPTIONS": "detect_leaks=0 log_path={report}", "UBSAN_OPTIONS": "print_stacktrace=1"},
    ),
    "thread": Sanitizer(
        "thread",
        ("libtsan.so",),
        {"TSAN_OPTIONS": f"suppressions={HERE / 'thread.supp'} die_after_fork=0 log_path={{report}}"},
        ("setarch", "-R"),  # the sanitizer knows no randomized addresses
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sanitizer", choices=SANITIZERS)
    parser.add_argument("--target", action="append", default=[], help="what else to build")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    chosen, folder = SANITIZERS[args.sanitizer], ROOT / "build" / f"sanitize-{args.sanitizer}"
    build(chosen, folder, ["_core", "npu_virtual", *args.target])
    for report in folder.glob("report.*"):
        report.unlink()
    done = subprocess.run([*chosen.prefix, *args.command], env=os.environ | environment(chosen, folder))
    reports = [path.read_text(errors="replace") for path in folder.glob("report.*")]
    print(*reports, sep="\n", file=sys.stderr)
    return done.returncode or bool(reports)


def build(chosen: Sanitizer, folder: Path, targets: list[str]) -> None:
    runtime = folder / "site" / "opennpu" / "runtime"
    runtime.mkdir(parents=True, exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    for path in (*(ROOT / name for name in PACKAGES), *(ROOT / "runtime").iterdir()):
        link = (runtime if path.parent.name == "runtime" else runtime.parent) / path.name
        if path.suffix != ".so" and not link.is_symlink():
            link.symlink_to(path)
    options = [f"-DOPENNPU_SANITIZE={chosen.flags}", f"-DOPENNPU_LIBRARY_DIR={runtime}"]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options], check=True)
    subprocess.run(["cmake", "--build", folder, "--target", *targets], check=True)


def environment(chosen: Sanitizer, folder: Path) -> dict[str, str]:
    """For the command: the package, the sanitizer's libraries and its options."""
    libraries = (
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
        for name in chosen.libraries
    )
    preload = " ".join(path.strip() for path in libraries)
    return {
        "PYTHONPATH": str(folder / "site"),
        "LD_PRELOAD": preload,
        "OMP_NUM_THREADS": "1",
        **{name: text.format(report=folder / "report") for name, text in chosen.options.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
