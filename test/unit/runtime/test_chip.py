"""Chip files: what they give, and what is said about wrong ones."""

import hashlib
import json

import pytest
from opennpu.runtime.chip import CHIPS, SCHEMA, Chip, ChipError

LITE = (CHIPS / "npu1-lite.toml").read_text()


@pytest.mark.parametrize("path", sorted(CHIPS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_chip_loads_by_name_and_by_path(path):
    chip = Chip.load(path.stem)
    assert chip == Chip.load(path) == Chip.from_dict(chip.to_dict())
    assert chip.name == path.stem
    assert chip.spm_bytes == chip.spm_kib * 1024


def test_fingerprint_is_that_of_the_canonical_json():
    chip = Chip.load("npu1-lite")
    text = json.dumps(chip.to_dict(), sort_keys=True, separators=(",", ":"))
    assert chip.fingerprint == int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    assert chip.fingerprint != Chip.load("npu1").fingerprint


@pytest.mark.parametrize("key", [key for keys in SCHEMA.values() for key in keys])
def test_missing_key_is_named_with_its_file(tmp_path, key):
    path = tmp_path / "chip.toml"
    path.write_text("\n".join(line for line in LITE.splitlines() if not line.startswith(key)))
    with pytest.raises(ChipError, match=rf"chip\.toml: missing key `(\w+\.)?{key}`"):
        Chip.load(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 2", 'cores = "two"', "`cores` must be an integer, not 'two'"),
        ("cores = 2", "cores = true", "`cores` must be an integer"),
        ("cores = 2", "cores = 0", "`cores` must be from 1 to"),
        ("cores = 2", "cores = 2\ncolour = 3", "unknown key `colour`"),
        ("spm_kib = 512", "spm_kib = 512\nspm_mib = 1", "unknown key `memory.spm_mib`"),
        ("align_bytes = 64", "align_bytes = 96", "power of two"),
        ("strip = 16", "strip = 48", "multiple of `matrix.strip`"),
        ('name = "npu1-lite"', 'name = ""', "`name` must be a string of 1 to 63 bytes"),
        ("[memory]", "[memory", "not TOML"),
    ],
)
def test_wrong_values_are_explained(tmp_path, old, new, message):
    path = tmp_path / "chip.toml"
    path.write_text(LITE.replace(old, new))
    with pytest.raises(ChipError, match=message) as error:
        Chip.load(path)
    assert "chip.toml" in str(error.value)


def test_unknown_name_lists_the_chips():
    with pytest.raises(ChipError, match="npu1, npu1-lite"):
        Chip.load("npu9")
