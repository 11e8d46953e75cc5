"""Programs that another process compiled are found again, for other sizes too."""

import torch
from device_process import run
from opennpu.compiler.cache import Cache

SCRIPT = """
    import torch
    from opennpu.compiler import operator

    compiled, compile_operator = [], operator.compile_operator

    def counted(target, *args, **kwargs):
        compiled.append(target)
        return compile_operator(target, *args, **kwargs)

    operator.compile_operator = counted

    def check(rows, columns):
        x = torch.randn(rows, columns)
        result = x.to("opennpu").softmax(-1).cpu()
        torch.testing.assert_close(result, x.softmax(-1))
"""
CALLS = """
    check{}
    check{}
    print(compiled)
"""


def test_by_kind_and_number(tmp_path):
    """Rows of two steps of the ladder are two programs of one kind of call, in the order of their need."""
    first = run(SCRIPT + CALLS.format((4, 64), (4, 2000)), OPENNPU_CACHE_DIR=tmp_path)
    assert first == f"{['aten._softmax'] * 2}\n"
    kept = {entry.key for entry in Cache(tmp_path).entries()}
    assert len(kept) == 2
    assert run(SCRIPT + CALLS.format((5, 1500), (7, 300)), OPENNPU_CACHE_DIR=tmp_path) == "[]\n"
    assert {entry.key for entry in Cache(tmp_path).entries()} == kept


def test_a_folder_that_cannot_be_written_is_told_once(monkeypatch, tmp_path, recwarn):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("OPENNPU_CACHE_DIR", str(file / "cache"))
    x = torch.arange(48.0)
    for sizes in ((2, 12, 2), (2, 2, 3, 4)):  # two programs
        y = x.reshape(sizes)
        assert torch.equal(y.to("opennpu").flip(0, 1, -1).cpu(), y.flip(0, 1, -1))
    (warning,) = [w for w in recwarn if w.category is RuntimeWarning]
    assert str(file / "cache") in str(warning.message) and "OPENNPU_CACHE_DIR" in str(warning.message)
