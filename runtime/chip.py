"""A chip as data: the TOML file that compiler, virtual chip and timing model read alike."""

import hashlib
import json
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

CHIPS = Path(__file__).parent / "chips"

# section → key → type, in the order of the file; section "" is the top level.
SCHEMA: dict[str, dict[str, type]] = {
    "": {"name": str, "cores": int, "clock_mhz": int},
    "memory": {"spm_kib": int, "acc_kib": int, "hbm_gib": int, "align_bytes": int, "share_cores": int},
    "matrix": {"mx_k": int, "mx_n": int, "strip": int, "pair": int},
}


class ChipError(ValueError):
    """A chip file that cannot be used; the message names the file and every wrong key."""


@dataclass(frozen=True)
class ChipTiming:
    """What things cost on a chip: the table `timing` of its file, units in the names.

    docs/timing.md says how the timing model uses each. What is in FREE may be 0, all others are
    positive. What has a default may be left out: without banks the scratchpad has no conflicts.
    """

    issue_cycles: int
    queue_depth: int
    scalar_load_cycles: int
    flag_cycles: int
    barrier_cycles: int
    hbm_gbps: int
    hbm_burst_bytes: int
    hbm_run_overhead_bytes: int
    dma_bytes_per_cycle: int
    dma_latency_cycles: int
    dma_run_cycles: int
    dma_index_cycles: int
    matrix_bf16_row_cycles: int
    matrix_f32_row_cycles: int
    matrix_load_row_cycles: int
    matrix_latency_cycles: int
    vector_lanes: int
    vector_special_lanes: int
    vector_startup_cycles: int
    dma_share_cycles: int = 0
    spm_banks: int = 0
    spm_bank_bytes_per_cycle: int = 0


MOST_BANKS = 64

FREE = {
    "scalar_load_cycles",
    "flag_cycles",
    "barrier_cycles",
    "hbm_run_overhead_bytes",
    "dma_latency_cycles",
    "dma_run_cycles",
    "dma_index_cycles",
    "dma_share_cycles",
    "matrix_latency_cycles",
    "vector_startup_cycles",
    "spm_banks",
    "spm_bank_bytes_per_cycle",
}


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
    share_cores: int
    mx_k: int
    mx_n: int
    strip: int
    pair: int
    timing: ChipTiming | None = field(default=None, compare=False)
    """None where the file has no table `timing`. No part of the chip's identity: neither `to_dict`
    nor the fingerprint has it, so a program does not depend on what things cost."""

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
        problems += _timing_problems(data.get("timing", {}))
        if not problems:
            problems = list(_inconsistencies(values))
        if problems:
            raise ChipError(f"{where}: " + "; ".join(problems))
        timing = ChipTiming(**data["timing"]) if data.get("timing") else None
        return cls(**values, timing=timing)

    def to_dict(self) -> dict:
        """The nested form of the file, without `timing`."""
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

    @property
    def hbm_bytes_per_cycle(self) -> float:
        """Of the whole chip, by `timing`."""
        return 1000 * self.timing.hbm_gbps / self.clock_mhz

    @property
    def bf16_macs_per_cycle(self) -> float:
        """Multiply-adds of all matrix units at their peak, by `timing`."""
        return self.cores * self.mx_k * self.mx_n / self.timing.matrix_bf16_row_cycles


def _timing_problems(table: object):
    """Wrong and missing keys of the table `timing`, which may be absent as a whole."""
    if not isinstance(table, dict):
        yield f"`timing` must be a table, not {table!r}"
    elif table:
        known = {f.name: f for f in fields(ChipTiming)}
        yield from (f"unknown key `timing.{key}`" for key in table if key not in known)
        for key, spec in known.items():
            value = table.get(key, None if spec.default is MISSING else spec.default)
            if problem := _problem(f"timing.{key}", value, int, 0 if key in FREE else 1):
                yield problem
        banks, port = table.get("spm_banks", 0), table.get("spm_bank_bytes_per_cycle", 0)
        if type(banks) is int and banks > MOST_BANKS:
            yield f"`timing.spm_banks` must be at most {MOST_BANKS}, not {banks}"
        if bool(banks) != bool(port):
            yield "`timing.spm_banks` and `timing.spm_bank_bytes_per_cycle` need each other"


def _problem(title: str, value: object, type_: type, least: int = 1) -> str | None:
    if value is None:
        return f"missing key `{title}`"
    if type(value) is not type_:
        return f"`{title}` must be {'an integer' if type_ is int else 'a string'}, not {value!r}"
    if type_ is int and not least <= value < 1 << 31:
        return f"`{title}` must be from {least} to {(1 << 31) - 1}, not {value}"
    if type_ is str and not 0 < len(value.encode()) < 64:
        return f"`{title}` must be a string of 1 to 63 bytes"
    return None


def _unknown_keys(data: dict):
    for key, value in data.items():
        if key == "timing":
            continue
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
