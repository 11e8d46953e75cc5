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
PREFILL = [Launch(64, 1, 64)]


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
    """One product begins with its slowest tiling, one with its fastest, the others have no choice."""
    chip = replace(CHIP, name="small", spm_kib=384)
    offers = {"576 × 3072": lambda t: (t[-1], t[0]), "1536 × 576": lambda t: (t[0], t[-1])}
    choose = Choices.choose

    def offered(self, product, tilings):
        offer = next((offer for shape, offer in offers.items() if shape in product), lambda t: t[:1])
        return choose(self, product, offer(tilings))

    monkeypatch.setattr(Choices, "choose", offered)
    archive, done = load_archive(DEMO), []

    def tune() -> tuning.Tuned:
        return tuning.tuned(DEMO, archive, chip, PREFILL, lambda *at: done.append(at), Cache(tmp_path))

    found = tune()
    assert found.after[0] < found.before[0]
    assert ["576 × 3072" in product for product in found.made] == [True]
    model = compiled(archive, chip, Choices(found.made))
    assert [model.batch(64, 1, 64).cycles] == found.after
    tried = len(done)
    assert tried == done[-1][1] == 2
    assert tune() == found and len(done) == tried, "found in the cache"
    (entry,) = Cache(tmp_path).entries()
    assert json.loads(entry.path.read_text())["made"] == found.made
    lines = list(tuning.table(found, PREFILL))
    assert f"{found.before[0]:,}" in lines[1]
    assert sum("(changed)" in line for line in lines) == len(found.made)
