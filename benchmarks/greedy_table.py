"""Greedy continuations and logits of a model on the virtual chip next to transformers', as docs/greedy.md."""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from opennpu.runtime.device import Device
from opennpu.runtime.program import Program
from opennpu.tools.baseline.causal import Causal, load_tokenizer
from opennpu.tools.baseline.prompts import TEXT, prompts
from opennpu.tools.baseline.record import DTYPES
from opennpu.tools.validation.results import relative_error, top1_agreement
from opennpu.tools.validation.subject import ChipModel
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Continuation:
    """What each of the three generates after a prompt, in tokens."""

    label: str  # the prompt, as text
    prompt: list[int]
    generated: dict[str, list[int]]  # of "fp32", "bf16", "chip"


@dataclass(frozen=True)
class Parting:
    """Where a continuation leaves that of fp32, and what fp32 thinks of both tokens."""

    position: int  # generated tokens that agree before it
    expected: int
    found: int
    margin: float  # by which fp32's logit of `expected` is above that of `found`
    moved: float  # how far the margin is from that in the one that parts, in one launch


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.set_grad_enabled(False)
    tokenizer = load_tokenizer(args.model_dir)
    models = {name: Causal(args.model_dir, dtype) for name, dtype in DTYPES.items()}
    models["chip"] = ChipModel(Program.load(Device(), args.program))
    continuations = []
    for label, prompt in tqdm(list(prompts(tokenizer)), disable=None):
        generated = {name: _greedy(model, prompt, args.tokens) for name, model in models.items()}
        continuations.append(Continuation(label, prompt, generated))
    text = tokenizer(args.text.read_text()).input_ids
    page = "\n".join(
        [
            *_introduction(args.tokens),
            *_table(continuations, tokenizer),
            *_partings(continuations, models, tokenizer),
            *_teacher_forced(text, args.text, {name: model.logits(text) for name, model in models.items()}),
        ]
    )
    args.output.write_text(page + "\n")
    print(f"{args.output}: {len(continuations)} prompts, {args.tokens} tokens each")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="greedy_table.py", description=__doc__)
    demo = ROOT / "build" / "demo"
    parser.add_argument("--program", type=Path, default=demo / "model.npu", help="default: the demo's")
    parser.add_argument("--model-dir", type=Path, default=demo / "smollm2", help="the same model's directory")
    parser.add_argument("--tokens", type=int, default=32, help="to generate after each prompt")
    parser.add_argument("--text", type=Path, default=TEXT, help="running text for teacher-forced logits")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "greedy.md")
    return parser


def _greedy(model: Causal | ChipModel, prompt: list[int], count: int) -> list[int]:
    out = model.greedy(prompt, count)
    return out.tokens if isinstance(model, Causal) else out


# ---- the page


def _introduction(count: int) -> list[str]:
    return [
        "# Greedy text, next to transformers",
        "",
        "Printed by `benchmarks/greedy_table.py`: SmolLM2-135M-Instruct, compiled in bfloat16, on the native",
        f"engine, {count} tokens after each of ten prompts; transformers in float32 (fp32) and in bfloat16",
        "(bf16). `=` is fp32's text to the last token; a number says how many tokens agree with fp32's.",
        "",
    ]


def _table(continuations: Iterable[Continuation], tokenizer) -> list[str]:
    rows = ["| prompt | transformers fp32 | transformers bf16 | OpenNPU |", "|---|---|---|---|"]
    for c in continuations:
        expected = c.generated["fp32"]
        cells = [_cell(c.label), _cell(tokenizer.decode(expected))]
        for name in ("bf16", "chip"):
            same = _agreement(expected, c.generated[name])
            text = _cell(tokenizer.decode(c.generated[name]))
            cells.append("=" if c.generated[name] == expected else f"{same}: {text}")
        rows.append(f"| {' | '.join(cells)} |")
    return [*rows, ""]


def _partings(continuations: Iterable[Continuation], models: dict, tokenizer) -> list[str]:
    """The table of where they part."""
    rows = []
    for c in continuations:
        for name, who in (("bf16", "transformers bf16"), ("chip", "OpenNPU")):
            if parting := _parting(c, name, models):
                tokens = (_cell(tokenizer.decode([t])) for t in (parting.expected, parting.found))
                shown = [_cell(c.label), who, str(parting.position), *tokens]
                rows.append(f"| {' | '.join(shown)} | {parting.margin:.3f} | {parting.moved:.3f} |")
    if not rows:
        return ["All continuations are the same.", ""]
    return [
        "## Where they part",
        "",
        "The position counts generated tokens. The margin is by how much fp32's logit of its own token is",
        "above that of the other's token, after the same tokens. The last column is how far the roundings to",
        "bfloat16 move that margin in one launch over all tokens before. OpenNPU's logits are the same",
        "however tokens are split over launches, so its texts part where the margin is smaller than that.",
        "Those of transformers depend on the split: the run that parts may have moved the margin further.",
        "",
        "| prompt | who | position | fp32 has | it has | margin in fp32 | moved by |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]


def _parting(c: Continuation, name: str, models: dict) -> Parting | None:
    expected, found = c.generated["fp32"], c.generated[name]
    position = _agreement(expected, found)
    if position == min(len(expected), len(found)):
        return None
    context = [*c.prompt, *expected[:position]]
    pair = (expected[position], found[position])
    margins = []
    for model in (models["fp32"], models[name]):
        logits = model.logits(context)[-1]
        margins.append(float(logits[pair[0]] - logits[pair[1]]))
    return Parting(position, *pair, margins[0], abs(margins[0] - margins[1]))


def _teacher_forced(text: list[int], path: Path, logits: dict[str, Tensor]) -> list[str]:
    exact = logits["fp32"]
    rows = [
        f"| {who} | {top1_agreement(logits[name], exact):.2%} | {relative_error(logits[name], exact):.3%} |"
        for name, who in (("bf16", "transformers bf16"), ("chip", "OpenNPU"))
    ]
    return [
        "## Teacher-forced logits",
        "",
        f"Over the {len(text)} tokens of `{path.name}`, in one launch, against transformers in float32:",
        "how often the most likely token is the same, and ‖x − fp32‖ / ‖fp32‖ over all logits.",
        "",
        "| | top-1 agreement | relative error |",
        "|---|---|---|",
        *rows,
    ]


def _agreement(expected: list[int], found: list[int]) -> int:
    """How many tokens are equal from the start."""
    differs = (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b)
    return next(differs, min(len(expected), len(found)))


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return text.replace("\n", " ↵ ").replace("`", "\\`").replace("_", "\\_")


if __name__ == "__main__":
    sys.exit(main())
