"""HTML pages that carry their data and need no network: a template, the shared style and script, the data."""

import json
from pathlib import Path

TOOLS = Path(__file__).parents[1]
STYLE, SCRIPT, DATA = "/*STYLE*/", "/*SCRIPT*/", "/*DATA*/null"


def filled(template: str, data: dict) -> str:
    """The page of a template, a path within tools/."""
    text = (TOOLS / template).read_text(encoding="utf-8")
    here = Path(__file__).parent
    for place, name in ((STYLE, "page.css"), (SCRIPT, "page.js")):
        text = text.replace(place, (here / name).read_text(encoding="utf-8").strip())
    return text.replace(DATA, json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))
