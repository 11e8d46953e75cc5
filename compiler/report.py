"""What a compilation made, as text: kernels and their costs, program size, time per stage."""

from pathlib import Path

from opennpu.compiler.pipeline import Result

_COLUMNS = ("kernel", "source", "flops", "HBM bytes", "spm", "acc", "location")


def report(result: Result) -> str:
    """A table of kernels in program order, then sizes and times."""
    rows = [_COLUMNS]
    for entry in result.signature["report"]:
        sizes = (_size(entry[space]) for space in ("spm", "acc"))
        rows.append(
            (entry["kernel"], entry["source"], entry["flops"], entry["bytes"], *sizes, entry["location"])
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", *_times(result)])


def summary(output: Path, result: Result) -> str:
    """One line."""
    weights = next(arg["bytes"] for arg in result.signature["args"] if arg["kind"] == "weights")
    held = (
        _size(weights) if result.has_weights else f"left out ({_size(weights)}: the archive has shapes only)"
    )
    chip, seconds = result.signature["chip"]["name"], sum(result.seconds.values())
    return (
        f"{output}: {len(result.signature['report'])} kernels, program {_size(result.program_bytes)}, "
        f"weights {held}, compiled for {chip} in {seconds:.1f} s"
    )


def _times(result: Result) -> list[str]:
    total = sum(result.seconds.values())
    return [f"{name:10} {seconds:7.2f} s" for name, seconds in result.seconds.items()] + [
        f"{'total':10} {total:7.2f} s"
    ]


def _size(count: int) -> str:
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << shift:
            return f"{count / (1 << shift):.1f} {unit}"
    return f"{count} B"
