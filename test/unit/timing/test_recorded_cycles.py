"""No compiled program gets slower on its chip unnoticed. To record anew what the compiler reaches:

python test/unit/timing/test_recorded_cycles.py
"""

import json
from pathlib import Path

import pytest
from opennpu.compiler.frontend.archive import load_archive
from opennpu.runtime.chip import Chip
from opennpu.tools.exploration.sweep import Launch, compiled

DEMO = Path(__file__).parents[3] / "build" / "demo" / "model.pt"
RECORD = Path(__file__).parent / "recorded_cycles.json"
CHIPS = ("npu1", "npu1-lite")
LAUNCHES = (Launch(1, 1, 256), Launch(8, 8, 256), Launch(200, 1, 200), Launch(50, 3, 300))
SLACK = 1.03
"""The timing model is deterministic: any change is the compiler's, or that of a chip's costs."""


def cycles() -> dict[str, dict[str, int]]:
    """Of the demo's model, by chip and launch."""
    archive = load_archive(DEMO)
    out = {}
    for chip in CHIPS:
        model = compiled(archive, Chip.load(chip))
        out[chip] = {str(each): model.batch(each.tokens, each.seqs, each.context).cycles for each in LAUNCHES}
    return out


@pytest.mark.skipif(not DEMO.exists(), reason="build/demo/model.pt is not there")
def test_no_launch_is_slower_than_recorded():
    recorded, now = json.loads(RECORD.read_text()), cycles()
    assert {chip: set(launches) for chip, launches in recorded.items()} == {
        chip: set(launches) for chip, launches in now.items()
    }
    slower = [
        f"{launch} on {chip}: {count:,} cycles, recorded {recorded[chip][launch]:,}"
        for chip, launches in now.items()
        for launch, count in launches.items()
        if count > SLACK * recorded[chip][launch]
    ]
    assert not slower, "\n".join(slower)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(cycles(), indent=1) + "\n")
