"""The validation as one HTML page: the figures, and a script that draws them (report.html)."""

import argparse
from collections.abc import Sequence

from opennpu.tools.baseline import machine
from opennpu.tools.page.template import filled
from opennpu.tools.validation.results import Level, finite


def summary(args: argparse.Namespace, levels: Sequence[Level], recording: dict | None) -> dict:
    """What the JSON file and the page hold."""
    names = ("dtype", "target", "engine", "baseline", "seed")
    head = {"model": args.model_dir.resolve().name, **{name: getattr(args, name) for name in names}}
    recorded = recording and {key: recording[key] for key in ("hardware", "limits", "versions")}
    return finite(
        {
            **head,
            "machine": {**machine.hardware("cpu"), **machine.versions()},
            "recorded": recorded,
            "holds": all(level.holds for level in levels),
            "levels": {level.name: level.to_dict() for level in levels},
        }
    )


def page(data: dict) -> str:
    """It needs no network."""
    return filled("validation/report.html", data)
