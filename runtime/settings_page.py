"""`docs/settings.md`: `python -m opennpu.runtime.settings_page > docs/settings.md`."""

from dataclasses import Field, fields

from opennpu.runtime.settings import Settings, variable

HEAD = """# Settings

Environment variables, read at the first use; `npu-serve` has an option for each: `--opennpu-chip` for
`OPENNPU_CHIP`. A value that makes no sense is an error. Printed by `python -m opennpu.runtime.settings_page`;
do not edit.

| variable | meaning | default |
|---|---|---|
"""


def page() -> str:
    """The text of docs/settings.md."""
    return HEAD + "".join(map(_row, fields(Settings)))


def _row(known: Field) -> str:
    return f"| `{variable(known.name)}` | {known.metadata['meaning']} | {default_text(known)} |\n"


def default_text(known: Field) -> str:
    """The default of a field of Settings, as it is written in the environment, or in words."""
    if known.metadata["otherwise"]:
        return known.metadata["otherwise"]
    return f"`{int(known.default) if isinstance(known.default, bool) else known.default}`"


if __name__ == "__main__":
    print(page(), end="")
