"""The compile cache, with threads and processes at once and with damage."""

import os
import subprocess
import sys
import threading

import pytest
from opennpu.compiler.cache import CHECKSUM, Cache, default_folder, key_of


class Builder:
    """Writes `data`, counts how often."""

    def __init__(self, data=b"program"):
        self.data, self.calls = data, 0

    def __call__(self, path):
        self.calls += 1
        path.write_bytes(self.data)


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_builds_once(cache):
    build = Builder()
    first, second = cache.get_or_build("k", build), cache.get_or_build("k", build)
    assert first == second and first.read_bytes() == b"program" and build.calls == 1
    assert [(e.key, e.bytes) for e in cache.entries()] == [("k", 7)]


def test_another_cache_of_the_folder_finds_it(cache):
    cache.get_or_build("k", Builder())
    other = Builder(b"not built")
    assert Cache(cache.folder).get_or_build("k", other).read_bytes() == b"program"
    assert other.calls == 0


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "checksum", "no checksum"])
def test_damaged_entries_are_built_again(cache, damage):
    path = cache.get_or_build("k", Builder())
    match damage:
        case "truncate":
            path.write_bytes(b"prog")
        case "flip":
            path.write_bytes(b"Program")
        case "remove":
            path.unlink()
        case "checksum":
            (path.parent / CHECKSUM).write_bytes(b"\xff\xfe")
        case "no checksum":
            (path.parent / CHECKSUM).unlink()
    again = Builder()
    assert cache.get_or_build("k", again).read_bytes() == b"program" and again.calls == 1
    assert cache.get_or_build("k", again).read_bytes() == b"program" and again.calls == 1


def test_failed_build_leaves_no_entry(cache):
    def fail(path):
        path.write_bytes(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cache.get_or_build("k", fail)
    assert cache.entries() == []
    assert cache.get_or_build("k", Builder()).read_bytes() == b"program"


def test_least_recently_used_go_first(tmp_path):
    cache = Cache(tmp_path, limit_bytes=250)
    for key in ("a", "b"):
        cache.get_or_build(key, Builder(bytes(100)))
    _age(cache)
    cache.get_or_build("a", Builder())
    cache.get_or_build("c", Builder(bytes(100)))
    assert {e.key for e in cache.entries()} == {"a", "c"}
    cache.get_or_build("large", Builder(bytes(1000)))  # more than the limit, but what was asked for stays
    assert {e.key for e in cache.entries()} == {"large"}


def test_entries_are_looked_at_rarely_while_there_is_room(tmp_path, monkeypatch):
    cache, looks = Cache(tmp_path, limit_bytes=10_000_000), []
    monkeypatch.setattr(cache, "entries", lambda: looks.append(1) or [])
    for key in range(100):
        cache.get_or_build(str(key), Builder(bytes(100)))
    assert len(looks) == 1


def _age(cache):
    for i, entry in enumerate(cache.entries()):
        os.utime(entry.path.parent / CHECKSUM, ns=(i, i))


def test_clear(cache):
    for key in "abc":
        cache.get_or_build(key, Builder())
    cache.clear()
    assert cache.entries() == [] and list(cache.folder.iterdir()) == []


def test_clear_leaves_what_is_being_built(cache):
    def build(path):
        Cache(cache.folder).clear()
        path.write_bytes(b"program")

    assert cache.get_or_build("k", build).read_bytes() == b"program"


def test_threads_build_once(cache):
    build, paths = Builder(), []
    threads = [
        threading.Thread(target=lambda: paths.append(cache.get_or_build("k", build))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 8 and build.calls == 1


ASK = """
import sys, time
from pathlib import Path
from opennpu.compiler.cache import Cache

folder, log = map(Path, sys.argv[1:])
sys.stdin.readline()
for i in range(20):
    def build(path):
        with log.open("a") as file:
            file.write(f"k{i}\\n")
        path.write_text(f"k{i}" * 1000)
        time.sleep(0.001)
    assert Cache(folder).get_or_build(f"k{i}", build).read_text() == f"k{i}" * 1000
"""


def test_processes_build_each_entry_once(cache, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", ASK, cache.folder, log]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:  # all start once they have been told
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert sorted(log.read_text().split()) == sorted(f"k{i}" for i in range(20))


def test_entries_may_vanish_under_those_who_wait(cache):
    """A removal deletes the lock file that others wait for; they make a new one."""
    stop = threading.Event()

    def clear():
        while not stop.is_set():
            Cache(cache.folder).clear()

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        for _ in range(100):
            cache.get_or_build("k", Builder())
    finally:
        stop.set()
        thread.join()


def test_folder_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENNPU_CACHE_DIR", str(tmp_path / "chosen"))
    assert Cache().folder == tmp_path / "chosen"
    monkeypatch.delenv("OPENNPU_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_folder() == tmp_path / "user" / "opennpu"


def test_unwritable_folder_is_replaced_with_a_warning(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENNPU_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="OPENNPU_CACHE_DIR"):
        cache = Cache()
    assert cache.get_or_build("k", Builder()).read_bytes() == b"program"
    cache.clear()
    cache.folder.rmdir()


@pytest.mark.parametrize(
    ("a", "b"),
    [(1, 1.0), (1, True), (1, "1"), ([1, 2], [1, 2, None]), ([[1], 2], [1, [2]]), ({"a": 1}, {"a": 2})],
)
def test_different_requests_have_different_keys(a, b):
    assert key_of(a, "chip") != key_of(b, "chip")
    assert key_of(a, "chip") != key_of(a, "another chip")
    assert key_of(a, "chip") != key_of(a, "chip", {"flag": 1})


def test_equal_requests_have_equal_keys():
    request = {"target": "aten.add.Tensor", "args": [(1, 2.5, None)]}
    assert key_of(request, "chip") == key_of(dict(reversed(request.items())), "chip")
    assert key_of([float("nan")], "chip") == key_of([float("nan")], "chip")


def test_reading_imports_no_mlir():
    code = """if True:
        import sys
        from opennpu.compiler.cache import key_of
        from opennpu.compiler.tensor_spec import TensorSpec
        from opennpu.dialects.diagnostics import CompileError
        key_of(TensorSpec("f32", (1, 2)), "chip")
        print("torch_mlir" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
