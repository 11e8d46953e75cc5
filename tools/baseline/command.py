"""The command npu-baseline."""

import argparse
import os
import sys
from pathlib import Path

from .prompts import TEXT

_EPILOG = """examples:
  npu-baseline record build/demo/smollm2 -o smollm2.json
  npu-baseline record llama-8b -o llama-8b-gpu.json --dtype bf16      on a GPU, where there is one
  npu-baseline record llama-8b -o book.json --text book.txt --tokens 2048
  npu-baseline show smollm2.json

It needs PyTorch, transformers, tqdm and jsonschema. Without OpenNPU, copy the folder
tools/baseline alone: python -m baseline record …
"""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.action(args)
    except (OSError, ValueError) as error:
        print(f"npu-baseline: error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-baseline",
        description="Records what a model computes in PyTorch, and how fast, for npu-validate.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    record = actions.add_parser("record", help="run the model here and write a file")
    record.set_defaults(action=_record)
    record.add_argument("model_dir", type=Path, help="directory of a Hugging Face model")
    record.add_argument("-o", "--output", type=Path, required=True, help="the file, .json")
    record.add_argument(
        "--dtype", choices=["fp32", "bf16"], action="append", help="may be repeated; default: both"
    )
    record.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    record.add_argument("--text", type=Path, default=TEXT, help=f"default: {TEXT.name}, which comes with it")
    record.add_argument("--tokens", type=_count, default=256, help="of the text; default: 256")
    record.add_argument("--generate", type=_count, default=16, help="tokens after each prompt; default: 16")
    show = actions.add_parser("show", help="print what a file holds")
    show.set_defaults(action=_show)
    show.add_argument("file", type=Path)
    return parser


def _count(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _record(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from .files import save
    from .record import DTYPES, record

    if not args.output.parent.is_dir():
        raise ValueError(f"the directory {args.output.parent} does not exist")
    if args.output.is_dir() or not os.access(args.output.parent, os.W_OK):
        raise ValueError(f"{args.output} cannot be written: give a file, in a directory that can be")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds none here; leave it out, or give cpu")
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with tqdm(bar_format="npu-baseline {elapsed} {desc}", leave=False, disable=None) as bar:
        recording = record(
            args.model_dir,
            args.text,
            args.dtype or tuple(DTYPES),
            device,
            args.tokens,
            args.generate,
            lambda stage: bar.set_description_str(stage),
        )
    save(args.output, recording)
    print(f"{args.output}: {summary(recording)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from .files import load

    print(summary(load(args.file)))
    return 0


def summary(recording: dict) -> str:
    """A few lines for people."""
    hardware, versions = recording["hardware"], recording["versions"]
    text, limits = recording["text"], recording["limits"]
    lines = [
        f"{recording['model']['name']} on {hardware['name']} ({hardware['device']}, "
        f"{hardware['threads']} threads), PyTorch {versions['torch']}",
        f"  reads {limits['bytes_per_s'] / 1e9:,.1f} GB/s, "
        f"multiplies {limits['flop_per_s'] / 1e9:,.0f} GFLOP/s",
    ]
    for name, run in recording["runs"].items():
        prefill, decode = run["speed"]["prefill"], run["speed"]["decode"]
        lines.append(
            f"  {name}: perplexity {run['perplexity']:.4f} ({len(text['tokens'])} tokens of {text['name']}), "
            f"prefill {prefill['tokens_per_s']:,.1f} tokens/s, decode {decode['tokens_per_s']:,.1f} tokens/s"
        )
    return "\n".join(lines)
