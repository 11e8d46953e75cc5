"""PyTorch's own samples (OpInfo) of every native operator on the device: prints docs/torch_ops.md.

    python test/opinfo/opinfo_table.py > docs/torch_ops.md

A sample's results are compared with the CPU's. The samples of an operator run in a process that can
be lost: then the table says so, and another goes on.
"""

import argparse
import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from opennpu.runtime.torch_device import native
from torch.utils import _pytree as pytree

DEVICE = "opennpu"
DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.bool)

OTHER_NAMES = {
    "silu": ["nn.functional.silu"],
    "embedding": ["nn.functional.embedding"],
    "scaled_dot_product_attention": ["nn.functional.scaled_dot_product_attention"],
    "_softmax": ["softmax"],
    "_log_softmax": ["log_softmax"],
    "index": ["__getitem__"],
}
"""OpInfo's names of operators that it does not know by PyTorch's."""

COPIES = {
    "copy_": ["clone", "contiguous", "to", "bfloat16", "float", "long", "bool"],
    "fill_": ["fill", "full_like"],
}
"""What comes down to copies, casts and fills, which the table of conversions has no names for."""

# Sums in another order and functions of the chip's own; a rounding of bf16 is 2^-8.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}

PASSED, FALLEN_BACK, FAILED, CRASHED = "passed", "fallen back", "failed", "crashed"


@dataclass
class Row:
    """The samples of an OpInfo."""

    operators: list[str]
    counts: Counter
    reasons: Counter

    @property
    def samples(self) -> int:
        return sum(self.counts.values())


# ---- what to run


def entries() -> dict[str, list[str]]:
    """OpInfo's name, with its variant behind a dot → the native operators that it covers."""
    found: dict[str, list[str]] = {}
    for operator, names in _names_of_operators().items():
        for info in _infos():
            if info.name in names and info.variant_test_name != "triton_optimized":
                found.setdefault(title(info), []).append(operator)
    return found


def _names_of_operators() -> dict[str, set[str]]:
    by_base: dict[str, set[str]] = {}
    for info in _infos():
        by_base.setdefault(info.aten_name, set()).add(info.name)
    by_base |= {base: set(names) for base, names in OTHER_NAMES.items()}
    names = {name: by_base.get(name.split(".")[1], set()) for name, _, _ in native.aten_operators()}
    return names | {f"aten.{name}": set(infos) for name, infos in COPIES.items()}


def title(info) -> str:
    return ".".join(filter(None, (info.name, info.variant_test_name)))


def _infos():
    from torch.testing._internal.common_methods_invocations import op_db

    return op_db


# ---- running samples


def outcomes(
    name: str, dtypes: Iterable[torch.dtype] = DTYPES, limit: int | None = None
) -> Iterator[tuple[str, str]]:
    """(status, reason) of each sample, of at most `limit` for a dtype."""
    info = next(info for info in _infos() if title(info) == name)
    for dtype in dtypes:
        if dtype not in info.supported_dtypes("cpu"):
            continue
        for i, sample in enumerate(info.sample_inputs("cpu", dtype, requires_grad=False)):
            if limit is not None and i >= limit:
                break
            outcome = _outcome(info, sample)
            if outcome is not None:
                yield outcome


def _outcome(info, sample) -> tuple[str, str] | None:
    """None where the CPU itself refuses the sample."""
    try:
        expected = _run(info, sample)
    except Exception:
        return None
    moved = sample.transform(lambda x: x.to(DEVICE) if isinstance(x, torch.Tensor) else x)
    moved.args, moved.kwargs = pytree.tree_map(_device, (moved.args, moved.kwargs))
    torch.opennpu.reset_fallbacks()
    try:
        actual = _run(info, moved)
        problem = _difference(actual, expected, lambda: _run(info, sample.transform(_wide)))
    except Exception as error:
        problem = f"{type(error).__name__}: {_first_line(error)}"
    if problem:
        return FAILED, problem
    reasons = torch.opennpu.fallback_reasons()
    text = "; ".join(f"{name.removeprefix('aten::')}: {reason}" for name, reason in sorted(reasons.items()))
    return (FALLEN_BACK, text) if reasons else (PASSED, "")


def _run(info, sample):
    return info.op(sample.input, *sample.args, **sample.kwargs)


def _device(x):
    return torch.device(DEVICE) if x == "cpu" or isinstance(x, torch.device) else x


def _wide(x):
    return x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _difference(actual, expected, exact) -> str:
    """Empty where the results agree, or are as near to those of float64 as the CPU's are."""
    pairs = list(zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True))
    for i, (a, e) in enumerate(pairs):
        if not isinstance(e, torch.Tensor):
            if a != e:
                return f"{a} instead of {e}"
            continue
        if (a.shape, a.dtype, a.device.type) != (e.shape, e.dtype, DEVICE):
            return f"{_describe(a)} instead of {_describe(e)}"
        a = a.cpu()
        tolerance = TOLERANCE.get(e.dtype, 0)
        if torch.allclose(a, e, rtol=tolerance, atol=tolerance, equal_nan=True):
            continue
        if not e.is_floating_point() or not _as_near(a, e, pytree.tree_leaves(exact())[i], tolerance):
            return "other values" if a.numel() == 1 else f"other values in {_share(a, e, tolerance)}"
    return ""


def _as_near(a, e, exact, tolerance) -> bool:
    if exact.dtype != torch.float64:
        return False
    bound = 2 * (e.double() - exact).abs() + tolerance * (1 + exact.abs())
    same = (a.double() == exact) | (a.isnan() & exact.isnan()) | (a == e)
    return bool((((a.double() - exact).abs() <= bound) | same).all())


def _share(a, e, tolerance) -> str:
    wrong = (~torch.isclose(a, e, rtol=tolerance, atol=tolerance, equal_nan=True)).sum()
    return f"{int(wrong)} of {a.numel()} elements"


def _describe(x) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160]


# ---- in processes of their own


def rows(names: dict[str, list[str]], jobs: int) -> dict[str, Row]:
    """Of all names, in `jobs` processes at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        parts = pool.map(_rows, ({n: names[n] for n in list(names)[i::jobs]} for i in range(jobs)))
    return {name: row for part in parts for name, row in part.items()}


def _rows(names: dict[str, list[str]]) -> dict[str, Row]:
    found = {name: Row(operators, Counter(), Counter()) for name, operators in names.items()}
    rest = list(names)
    while rest:
        for name, status, reason in _worker(rest):
            if status == "start":
                rest.remove(name)
                print(name, file=sys.stderr, flush=True)
                continue
            found[name].counts[status] += 1
            if status != PASSED:
                found[name].reasons[f"{status}: {reason}"] += 1
    return found


def _worker(names: list[str]) -> Iterator[tuple[str, str, str]]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", *names], stdout=subprocess.PIPE, text=True
    )
    name = names[0]
    for line in process.stdout:
        name, status, reason = json.loads(line)
        yield name, status, reason
    if process.wait() != 0:
        yield name, CRASHED, f"the process ended with {process.returncode}"


def work(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    for name in names:
        print(json.dumps((name, "start", "")), flush=True)
        for status, reason in outcomes(name):
            print(json.dumps((name, status, reason)), flush=True)


# ---- the page

INTRODUCTION = """\
# PyTorch's samples on the device

PyTorch's own samples (OpInfo) of every operator that is native on the device `opennpu`, for float32,
bfloat16, int64 and bool, compared with the CPU: printed by `test/opinfo/opinfo_table.py`, not to be
edited. *Passed*: the results agree and everything ran on the chip. *Fallen back*: they agree, and part
of it ran on the host. What the reasons say of a number of samples is in parentheses.
"""


def page(table: dict[str, Row]) -> str:
    total = sum((row.counts for row in table.values()), Counter())
    lines = [
        INTRODUCTION,
        _total(total),
        "",
        "| OpInfo | native operators | samples | passed | fallen back | failed |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, row in sorted(table.items()):
        operators = ", ".join(f"`{operator.removeprefix('aten.')}`" for operator in row.operators)
        failed = row.counts[FAILED] + row.counts[CRASHED]
        counts = f"{row.samples} | {row.counts[PASSED]} | {row.counts[FALLEN_BACK]} | {failed}"
        lines.append(f"| {name} | {operators} | {counts} |")
    lines += ["", "## Reasons", ""]
    for name, row in sorted(table.items()):
        if row.reasons:
            lines.append(f"- **{name}**")
            lines += [f"  - {reason} ({count})" for reason, count in sorted(row.reasons.items())]
    return "\n".join(lines) + "\n"


def _total(counts: Counter) -> str:
    failed = counts[FAILED] + counts[CRASHED]
    return (
        f"In all {sum(counts.values())} samples: {counts[PASSED]} passed, {counts[FALLEN_BACK]} fallen back, "
        f"{failed} failed, {counts[CRASHED]} of them with the process."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", action="store_true", help="run the samples here and print each outcome")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("names", nargs="*", help="names of OpInfos; all without")
    args = parser.parse_args()
    if args.worker:
        work(args.names)
        return 0
    known = entries()
    print(page(rows({name: known[name] for name in args.names or known}, args.jobs)), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
