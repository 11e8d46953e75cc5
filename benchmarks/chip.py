"""Compiled models on their chips, by the timing model: how near decode and prefill come to the roofline.

npu-export build/llama-8b -o build/llama-8b/model.pt --dummy-weights     (config.json of Llama-3-8B)
python benchmarks/chip.py build/llama-8b/model.pt:npu1 build/demo/model.pt:npu1-lite
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from opennpu.compiler.frontend.archive import load_archive
from opennpu.compiler.paused_gc import paused_gc
from opennpu.runtime.chip import Chip
from opennpu.runtime.timing import TimedModel, TimingReport
from opennpu.tools.exploration.sweep import Launch, compiled
from tqdm import tqdm

CONTEXT = 2048
LAUNCHES = (
    Launch(1, 1, CONTEXT),
    Launch(8, 8, CONTEXT),
    Launch(64, 64, CONTEXT),
    Launch(CONTEXT, 1, CONTEXT),
)
HEAD = "| launch | ms | tokens/s | HBM GB/s | of HBM's peak | of the matrix units' | of the roofline |"


@paused_gc()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "models", nargs="+", metavar="MODEL.pt:CHIP", help="archives, and chips by name or file"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    args = parser.parse_args(argv)
    figures: list[dict] = []
    for text in args.models:
        archive, _, chip = text.partition(":")
        model = compiled(load_archive(Path(archive)), Chip.load(chip))
        print(f"{archive} on {model.chip.name}\n\n{HEAD}\n|{'---|' * HEAD.count(' | ')}---|", flush=True)
        for launch, report in reports(model):
            print(row(launch, report), flush=True)
            figure = {"seconds": report.seconds, "of_roofline": report.roofline_ratio}
            names = {"model": Path(archive).parent.name, "chip": model.chip.name, "launch": str(launch)}
            figures.append(names | figure)
        print()
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def reports(model: TimedModel) -> Iterator[tuple[Launch, TimingReport]]:
    for launch in tqdm(LAUNCHES, leave=False, disable=None):
        yield launch, model.batch(launch.tokens, launch.seqs, launch.context)


def row(launch: Launch, report: TimingReport) -> str:
    return (
        f"| {launch} | {1e3 * report.seconds:.3f} | {launch.tokens / report.seconds:,.1f} "
        f"| {report.hbm_gbps:,.0f} | {report.hbm_bound / report.cycles:.3f} "
        f"| {report.matrix_bound / report.cycles:.3f} | {report.roofline_ratio:.3f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
