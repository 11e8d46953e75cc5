"""npu-compile --tune: tilings are tried, kept where they are faster, and found again in the cache."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from opennpu.compiler.cache import Cache
from opennpu.compiler.frontend.archive import load_archive
from opennpu.compiler.kernels.choices import Choices
from opennpu.compiler.kernels.matmul_tiling import block_tilings
from opennpu.runtime.chip import Chip
from opennpu.tools.exploration import tune as tuning
from opennpu.tools.exploration.sweep import Launch, compiled

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.pt"
CHIP = Chip.load("npu1-lite")
PREFILL = [Launch(2048, 1, 2048)]


def test_alternatives_are_of_every_kind():
    tilings = block_tilings(CHIP, 4096, 1536, 2, 6, 96, 192)
    tried = [tilings[i] for i in tuning.alternatives(tilings)]
    assert tilings[0] not in tried
    assert len({tiling.depth for tiling in tried}) == min(tuning.KINDS, len({t.depth for t in tilings}))


def test_the_choice_is_the_products():
    choices = Choices({"b": 1})
    tilings = block_tilings(CHIP, 4096, 1536, 2, 6, 96, 192)
    assert choices.choose("a", tilings) is tilings[0] and choices.choose("b", tilings) is tilings[1]
    assert list(choices.offered) == ["a", "b"]


@pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.pt is not there")
def test_only_what_is_faster_is_kept(tmp_path, monkeypatch):
    """From the slowest tiling of every product on, on a chip of its own."""
    chip = replace(CHIP, name="small", spm_kib=384)
    choose = Choices.choose
    monkeypatch.setattr(Choices, "choose", lambda self, product, t: choose(self, product, t[::-1]))
    monkeypatch.setattr(tuning, "KINDS", 2)
    monkeypatch.setattr(tuning, "OF_A_KIND", 1)
    archive, done = load_archive(DEMO), []

    def tune() -> tuning.Tuned:
        return tuning.tuned(DEMO, archive, chip, PREFILL, lambda *at: done.append(at), Cache(tmp_path))

    found = tune()
    assert found.after[0] < found.before[0] and found.made
    model = compiled(archive, chip, Choices(found.made))
    assert [model.batch(2048, 1, 2048).cycles] == found.after
    tried = len(done)
    assert tried == done[-1][1] > 0
    assert tune() == found and len(done) == tried, "found in the cache"
    (entry,) = Cache(tmp_path).entries()
    assert json.loads(entry.path.read_text())["made"] == found.made
    lines = list(tuning.table(found, PREFILL))
    assert f"{found.before[0]:,}" in lines[1]
    assert sum("(changed)" in line for line in lines) == len(found.made)
