"""The compile cache: what was compiled once is found again, by this and by other processes.

An entry is a folder named by its key, with the compiled file, its checksum and a lock. The
checksum is written last, so an entry that lacks it, or does not fit it, is built anew. Imports
nothing of the compiler: reading an entry must be fast.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

DATA, CHECKSUM, LOCK, UNFINISHED = "model.npu", "checksum", "lock", "unfinished"
SOURCES = ("compiler", "dialects")
DEPENDENCIES = ("torch-mlir", "torch")
LIMIT_BYTES = 32 << 30


@dataclasses.dataclass(frozen=True)
class Entry:
    """A finished entry; `used` is the time of its last use, in nanoseconds since the epoch."""

    key: str
    path: Path
    bytes: int
    used: int


class Cache:
    """A folder of compiled files by key, shared by any number of processes and threads.

    folder: `OPENNPU_CACHE_DIR` if not given, else `opennpu` in the user's cache folder.
    limit_bytes: the least recently used entries go once there is more. Raises OSError.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES):
        self.folder = folder or default_folder()
        self.limit_bytes = limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    def get_or_build(self, key: str, build: Callable[[Path], None], *, anew: bool = False) -> Path:
        """The file of the entry, which `build` writes where there is none or it is damaged, or if `anew`.

        Of several that ask at once one builds. `build` must not ask for the same key; what it raises
        goes to the caller. Open the file at once: other processes may remove entries.
        """
        folder = self.folder / key
        if not anew and _is_valid(folder):
            _touch(folder)
            return folder / DATA
        with _locked(folder):
            if anew or not _is_valid(folder):
                _build(folder, build)
            added = (folder / DATA).stat().st_size
        if self._is_due(added):
            self._make_room(key)
        return folder / DATA

    def entries(self) -> list[Entry]:
        """All finished entries, the least recently used first."""
        found = []
        for folder in self.folder.iterdir():
            try:
                used, size = (folder / CHECKSUM).stat().st_mtime_ns, (folder / DATA).stat().st_size
            except OSError:
                continue  # being built, or just removed
            found.append(Entry(folder.name, folder / DATA, size, used))
        return sorted(found, key=lambda entry: entry.used)

    def clear(self) -> None:
        """Removes every entry but those that are being built."""
        for folder in list(self.folder.iterdir()):
            if folder.name.startswith("."):  # a removal that was cut short
                shutil.rmtree(folder, ignore_errors=True)
            else:
                _remove(folder)

    def _is_due(self, added: int) -> bool:
        """Whether to look at all entries, which takes long where there are thousands of operators."""
        left = _before_next_look.get(self._place, 0) - added
        _before_next_look[self._place] = left
        return left < 0

    def _make_room(self, keep: str) -> None:
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total <= self.limit_bytes:
                break
            if entry.key != keep and _remove(entry.path.parent):
                total -= entry.bytes
        # Other processes add to the folder too: each takes a part of what is free.
        _before_next_look[self._place] = (self.limit_bytes - total) // 8

    @property
    def _place(self) -> tuple[Path, int]:
        return self.folder, self.limit_bytes


_before_next_look: dict[tuple[Path, int], int] = {}
"""For a folder and a limit: the bytes that this process may add before it looks at all entries again."""


def default_folder() -> Path:
    """`OPENNPU_CACHE_DIR`, else the user's cache folder; a temporary one, with a warning, where that
    cannot be written."""
    if chosen := os.environ.get("OPENNPU_CACHE_DIR"):
        return Path(chosen)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opennpu"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    text = f"{folder} cannot be written: compiled programs are kept for this process only."
    warnings.warn(f"{text} Set OPENNPU_CACHE_DIR to a folder that can.", stacklevel=2)
    return _temporary_folder()


@lru_cache(maxsize=1)
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="opennpu-cache-"))


# ---- keys


def key_of(request: Any, chip: str, flags: Mapping[str, Any] | None = None) -> str:
    """The key of what `request` compiles to: sha256 over all that the result depends on.

    request: numbers, texts, None, and lists, dictionaries and dataclasses of such; anything else
    counts by its text (dtypes). chip: `Chip.canonical_json()`.
    """
    parts = [_canonical(request), chip, compiler_version(), _canonical(flags or {})]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _canonical(value: Any) -> Any:
    """The value as JSON in which different values differ: 1, 1.0, True and "1" too."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return ["float", value.hex()]
        case list() | tuple():
            return ["list", *map(_canonical, value)]
        case dict():
            return ["dict", *sorted([str(k), _canonical(v)] for k, v in value.items())]
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        return [type(value).__name__, *(_canonical(getattr(value, name)) for name in names)]
    return [type(value).__name__, str(value)]


@lru_cache(maxsize=1)
def compiler_version() -> str:
    """A hash of the compiler's sources and the versions of what it builds on."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(
        p for name in SOURCES for p in (root / name).rglob("*") if p.suffix in (".py", ".toml")
    ):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    for name in DEPENDENCIES:
        digest.update(f"{name}=={metadata.version(name)}\0".encode())
    return digest.hexdigest()


# ---- one entry


def _is_valid(folder: Path) -> bool:
    try:
        return (folder / CHECKSUM).read_text() == _checksum(folder / DATA)
    except (OSError, UnicodeDecodeError):
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    """Under the entry's lock."""
    unfinished = folder / UNFINISHED
    (folder / CHECKSUM).unlink(missing_ok=True)
    try:
        build(unfinished)
        checksum = _checksum(unfinished)
        unfinished.replace(folder / DATA)
        unfinished.write_text(checksum)
        unfinished.replace(folder / CHECKSUM)
    finally:
        unfinished.unlink(missing_ok=True)


def _touch(folder: Path) -> None:
    with suppress(OSError):  # a cache that others maintain
        os.utime(folder / CHECKSUM)


def _remove(folder: Path) -> bool:
    """False where the entry is in use."""
    try:
        with _locked(folder, wait=False):
            (folder / CHECKSUM).unlink(missing_ok=True)
            removed = folder.with_name(f".removed-{os.getpid()}-{threading.get_ident()}-{folder.name}")
            folder.rename(removed)  # at once: who asks for the key now makes a folder of its own
            shutil.rmtree(removed)
    except OSError:
        return False
    return True


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """The entry's lock, in a folder that exists. BlockingIOError where `wait` is false and it is taken."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / LOCK).open("a")
        except FileNotFoundError:
            continue  # the folder was removed in between
        with file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(file.fileno(), folder / LOCK):  # else whoever had it removed the entry
                yield
                return


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is the one of this path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
