"""A chip as data: the TOML file that compiler, virtual chip and timing model read alike."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

CHIPS = Path(__file__).parent / "chips"

# section → key → type, in the order of the file; section "" is the top level.
SCHEMA: dict[str, dict[str, type]] = {
    "": {"name": str, "cores": int, "clock_mhz": int},
    "memory": {"spm_kib": int, "acc_kib": int, "hbm_gib": int, "align_bytes": int},
    "matrix": {"mx_k": int, "mx_n": int, "strip": int, "pair": int},
}


class ChipError(ValueError):
    """A chip file that cannot be used; the message names the file and every wrong key."""


@dataclass(frozen=True)
class Chip:
    """The parameters of a chip, named and measured as in its file."""

    name: str
    cores: int
    clock_mhz: int
    spm_kib: int
    acc_kib: int
    hbm_gib: int
    align_bytes: int
    mx_k: int
    mx_n: int
    strip: int
    pair: int

    @classmethod
    def load(cls, chip: "str | Path | Chip") -> "Chip":
        """Load a chip by name (`npu1-lite`) or by the path of a TOML file. Raises ChipError."""
        if isinstance(chip, Chip):
            return chip
        path = CHIPS / f"{chip}.toml"
        if Path(chip).suffix == ".toml" or not path.exists():
            path = Path(chip)
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(sorted(p.stem for p in CHIPS.glob("*.toml")))
            raise ChipError(
                f"no chip {str(chip)!r}: give the name of a chip ({known}) "
                f"or a readable chip file (.toml): {error}"
            ) from error
        try:
            return cls.from_dict(tomllib.loads(text), str(path))
        except tomllib.TOMLDecodeError as error:
            raise ChipError(f"{path}: not TOML: {error}") from error

    @classmethod
    def from_dict(cls, data: dict, where: str = "chip") -> "Chip":
        """Build from the nested form of the file, as `model.npu` carries it. Raises ChipError."""
        problems = list(_unknown_keys(data))
        values = {}
        for section, keys in SCHEMA.items():
            table = data.get(section, {}) if section else data
            for key, type_ in keys.items():
                title = f"{section}.{key}" if section else key
                value = table.get(key) if isinstance(table, dict) else None
                problem = _problem(title, value, type_)
                if problem:
                    problems.append(problem)
                values[key] = value
        if not problems:
            problems = list(_inconsistencies(values))
        if problems:
            raise ChipError(f"{where}: " + "; ".join(problems))
        return cls(**values)

    def to_dict(self) -> dict:
        """The nested form of the file."""
        out = {key: getattr(self, key) for key in SCHEMA[""]}
        for section in list(SCHEMA)[1:]:
            out[section] = {key: getattr(self, key) for key in SCHEMA[section]}
        return out

    def canonical_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> int:
        """What a program image carries: the first 8 bytes of the sha256 of the canonical JSON."""
        return int.from_bytes(hashlib.sha256(self.canonical_json().encode()).digest()[:8], "little")

    @property
    def spm_bytes(self) -> int:
        return self.spm_kib << 10

    @property
    def acc_bytes(self) -> int:
        return self.acc_kib << 10

    @property
    def hbm_bytes(self) -> int:
        return self.hbm_gib << 30


def _problem(title: str, value: object, type_: type) -> str | None:
    if value is None:
        return f"missing key `{title}`"
    if type(value) is not type_:
        return f"`{title}` must be {'an integer' if type_ is int else 'a string'}, not {value!r}"
    if type_ is int and not 0 < value < 1 << 31:
        return f"`{title}` must be from 1 to {(1 << 31) - 1}, not {value}"
    if type_ is str and not 0 < len(value.encode()) < 64:
        return f"`{title}` must be a string of 1 to 63 bytes"
    return None


def _unknown_keys(data: dict):
    for key, value in data.items():
        if key in SCHEMA and isinstance(value, dict):
            for inner in value.keys() - SCHEMA[key].keys():
                yield f"unknown key `{key}.{inner}`"
        elif key not in SCHEMA[""] and key not in SCHEMA:
            yield f"unknown key `{key}`"


def _inconsistencies(chip: dict):
    """What the units of one chip must agree on."""
    align = chip["align_bytes"]
    if align < 64 or align & (align - 1):
        yield f"`memory.align_bytes` must be a power of two of at least 64, not {align}"
    if chip["mx_n"] % chip["strip"]:
        yield f"`matrix.mx_n` ({chip['mx_n']}) must be a multiple of `matrix.strip` ({chip['strip']})"
    if chip["mx_k"] % chip["pair"]:
        yield f"`matrix.mx_k` ({chip['mx_k']}) must be a multiple of `matrix.pair` ({chip['pair']})"
    if chip["acc_kib"] << 10 < 4 * chip["mx_n"]:
        yield "`memory.acc_kib` must hold one row of `matrix.mx_n` f32"
