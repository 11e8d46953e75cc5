from dataclasses import fields
from pathlib import Path

import pytest
from opennpu.runtime import settings, settings_page

DOCS = Path(settings.__file__).resolve().parents[1] / "docs"


def test_the_page_is_current():
    remedy = "run: python -m opennpu.runtime.settings_page > docs/settings.md"
    assert (DOCS / "settings.md").read_text() == settings_page.page(), remedy


def test_every_field_is_read_from_its_variable():
    """Two values of each, so that none can be ignored."""
    for field in fields(settings.Settings):
        read = [
            getattr(settings.read({settings.variable(field.name): text}), field.name)
            for text in "01"
            if field.name != "devices"
        ]
        assert len(set(read)) != 1, field.name
    assert settings.read({"OPENNPU_DEVICES": "3"}).devices == 3


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_variable_is_none(text):
    assert settings.read({"OPENNPU_CHIP": text, "OPENNPU_STRICT": text}) == settings.Settings()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("OPENNPU_STRICT", "yes", "OPENNPU_STRICT must be 0 or 1, not 'yes'"),
        ("OPENNPU_THREADS", "1025", "OPENNPU_THREADS must be an integer from 0 to 1024, not '1025'"),
    ],
)
def test_a_wrong_value(name, text, message):
    with pytest.raises(ValueError, match=message):
        settings.read({name: text})
