"""npu-run: run a compiled model on the virtual chip, language models and any others."""

import argparse
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from opennpu.runtime.chip import ChipError
from opennpu.runtime.container import Container, ContainerError
from opennpu.runtime.device import Device, NpuError
from opennpu.runtime.dtypes import DTYPES
from opennpu.runtime.language_model import KvPoolError, LanguageModel, sampler
from opennpu.runtime.page_pool import PagePool
from opennpu.runtime.program import Program, ProgramError
from opennpu.runtime.signature import SignatureError, TensorArg
from opennpu.tools.arguments import count, seconds
from opennpu.tools.output import discard_output
from opennpu.tools.profile.host import HostProfile, HostProfiler, Limits, limits_line, profile_lines

PAGE_SIZE = 16  # tokens

_EPILOG = """examples:
  npu-run model.npu --model-dir build/demo/smollm2 --prompt "Once upon a time"
  npu-run model.npu --model-dir build/demo/smollm2 --prompt "Why is the sky blue?" --chat
  npu-run model.npu --model-dir build/demo/smollm2 --prompt "Once upon a time" --profile
  npu-run mlp.npu --input x.npy --output y.npy
  npu-run mlp.npu --input input=x.npy --output output=y.npy --race-check
"""

ERRORS = (ChipError, ContainerError, SignatureError, NpuError, KvPoolError, ProgramError, OSError)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.profile and (args.driver or args.race_check or args.launch_limit or args.engine != "native"):
        _parser().error("--profile is of the native engine alone: no --driver, --race-check, --launch-limit")
    try:
        chip = Container.open(args.program).signature.chip
        device = Device(
            chip,
            engine=args.engine,
            threads=args.threads,
            race_check=args.race_check,
            launch_limit=args.launch_limit,
            driver=args.driver,
        )
        program = Program.load(device, args.program)
        profiler = (
            HostProfiler(program, Container.open(args.program).program, args.threads)
            if args.profile
            else None
        )
        if args.prompt is not None:
            run_language_model(program, args, profiler)
        else:
            run_tensors(program, args, profiler)
    except BrokenPipeError:
        discard_output()
    except ERRORS as error:
        print(f"npu-run: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run_language_model(program: Program, args: argparse.Namespace, profiler: HostProfiler | None) -> None:
    """Streams the prompt's continuation, then a line of figures; and where the time of launches went."""
    tokenizer = _load_tokenizer(args.model_dir)
    prompt = _encode(tokenizer, args.prompt, args.chat)
    tokens = args.kv_tokens or len(prompt) + args.max_new_tokens
    if program.signature.kv is None:
        raise ProgramError("the program is not a language model: use --input and --output")
    pool = PagePool(program.device, program.signature.kv, PAGE_SIZE, -(-tokens // PAGE_SIZE))
    model = LanguageModel(program, pool)

    start = time.perf_counter()
    times: list[float] = []
    generated = model.generate(prompt, args.max_new_tokens, sampler(args.temperature, args.seed))
    if not args.chat:
        print(args.prompt, end="", flush=True)
    profiles: dict[str, HostProfile] = {}
    timed = _timed(generated, times)
    if profiler:
        timed = _profiled(timed, profiler, profiles)
    for text in _stream_text(tokenizer, timed):
        print(text, end="", flush=True)
    print()
    _print_figures(args.note, len(prompt), start, times)
    if profiler:
        _print_profiles(profiles, profiler.threads)


def run_tensors(program: Program, args: argparse.Namespace, profiler: HostProfiler | None) -> None:
    """Runs once, from .npy files to .npy files."""
    if not args.output:
        names = ", ".join(program.signature.tensors("output"))
        raise ProgramError(f"the results need files: give --output for some of {names}")
    inputs = {
        name: _read_tensor(path, arg)
        for name, path, arg in _match(args.input, program.signature.tensors("input"), "input")
    }
    outputs = program.run(inputs)
    for name, path, _ in _match(args.output, program.signature.tensors("output"), "output"):
        value = outputs[name]
        # NumPy has no bfloat16.
        np.save(path, value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy())
        print(f"{path}: {name} {list(value.shape)} {str(value.dtype).removeprefix('torch.')}")
    if profiler:
        _print_profiles({"run": profiler.take()}, profiler.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-run",
        description="Runs a compiled model on the virtual chip, a language model or any other.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("program", type=Path, help="model.npu, made by npu-compile")
    parser.add_argument("--engine", choices=["native", "reference"], default="native", help="default: native")
    parser.add_argument("--threads", type=count, help="worker threads; default: one for each core")
    parser.add_argument("--race-check", action="store_true", help="check the order of all memory accesses")
    profile = "tell for each op of the model how long the host took, and how near that is to its limits"
    parser.add_argument("--profile", action="store_true", help=profile)
    limit = "watchdog: seconds that one launch may run before it fails; default: any time"
    parser.add_argument("--launch-limit", type=seconds, metavar="SECONDS", help=limit)
    parser.add_argument("--driver", type=Path, help="a vendor's driver library; default: the virtual chip")
    text = parser.add_argument_group("language models")
    text.add_argument("--prompt", help="text to continue")
    text.add_argument("--model-dir", type=Path, help="directory with the tokenizer")
    text.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    text.add_argument("--max-new-tokens", type=count, default=64, help="default: 64")
    text.add_argument("--temperature", type=float, default=0.0, help="default: 0, which is greedy")
    text.add_argument("--seed", type=int, help="make sampling repeatable")
    text.add_argument("--kv-tokens", type=count, help="size of the KV pool; default: what is needed")
    text.add_argument("--note", default="", help="what to say first in the closing line of figures")
    tensors = parser.add_argument_group("any other model")
    named = {"nargs": "+", "default": [], "metavar": "[NAME=]FILE.npy"}
    tensors.add_argument("--input", **named, help="values by name, or in the program's order")
    tensors.add_argument("--output", **named, help="where results go; those not named stay unwritten")
    return parser


# ---- text


def _load_tokenizer(model_dir: Path | None):
    if model_dir is None:
        raise ProgramError("--prompt needs --model-dir, the directory with the tokenizer")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ProgramError(f"{model_dir} has no tokenizer that can be loaded: {error}") from error


def _encode(tokenizer, prompt: str, chat: bool) -> list[int]:
    if chat:
        messages = [{"role": "user", "content": prompt}]
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    else:
        tokens = tokenizer(prompt)
    if not tokens["input_ids"]:
        raise ProgramError("the prompt is empty")
    return tokens["input_ids"]


def _stream_text(tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """The text of the tokens as it grows, holding back characters that are not complete."""
    before: list[int] = []  # some tokenizers drop a space at the start of what they decode
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode(before + pending)[len(tokenizer.decode(before)) :]
        if not text.endswith("\ufffd"):
            yield text
            before, pending = pending, []
    if pending:
        yield tokenizer.decode(pending)


def _timed(tokens: Iterator[int], times: list[float]) -> Iterator[int]:
    for token in tokens:
        times.append(time.perf_counter())
        yield token


def _profiled(
    tokens: Iterator[int], profiler: HostProfiler, profiles: dict[str, HostProfile]
) -> Iterator[int]:
    """The tokens; the launches before the first one are the prompt's."""
    for token in tokens:
        if not profiles:
            profiles["prefill"] = profiler.take()
        yield token
    profiles["decode"] = profiler.take()


def _print_profiles(profiles: dict[str, HostProfile], threads: int) -> None:
    limits = Limits.measure(threads)
    print(f"\n{limits_line(limits)}")
    for title, profile in profiles.items():
        if profile.launches:
            print("\n" + "\n".join(profile_lines(profile, limits, title)))


def _print_figures(note: str, prompt_tokens: int, start: float, times: list[float]) -> None:
    figures = [note] if note else []
    if times:
        figures.append(f"prefill {prompt_tokens / (times[0] - start):.1f} tok/s ({prompt_tokens} tokens)")
    if len(times) > 1:
        rate = (len(times) - 1) / (times[-1] - times[0])
        figures.append(f"decode {rate:.1f} tok/s ({len(times)} tokens)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures.append(f"peak memory {peak / 1e9:.2f} GB")
    print("[" + ", ".join(figures) + "]")


# ---- tensors


def _match(
    given: list[str], expected: dict[str, TensorArg], kind: str
) -> Iterator[tuple[str, Path, TensorArg]]:
    """(name, file, argument) of each `name=file` or `file`; those without a name in order."""
    names = [text.partition("=")[0] if "=" in text else None for text in given]
    unnamed = iter([name for name in expected if name not in names])
    for text, name in zip(given, names, strict=True):
        name = name or next(unnamed, None)
        if name not in expected:
            raise ProgramError(f"{kind} {text}: the program's {kind}s are {', '.join(expected)}")
        yield name, Path(text.rpartition("=")[2]), expected[name]


def _read_tensor(path: Path, arg: TensorArg) -> torch.Tensor:
    try:
        tensor = torch.from_numpy(np.load(path))
    except (ValueError, TypeError) as error:
        raise ProgramError(f"{path} is not a .npy file of numbers: {error}") from error
    # NumPy has no bfloat16: a float32 file stands for it.
    narrow = arg.dtype == "bf16" and tensor.dtype == torch.float32
    return tensor.to(DTYPES[arg.dtype]) if narrow else tensor


if __name__ == "__main__":
    sys.exit(main())
