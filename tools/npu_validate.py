"""npu-validate: a model on the chip, level by level, beside references that know nothing of it."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from opennpu.tools.arguments import count, output_file, output_folder
from opennpu.tools.baseline.prompts import TEXT
from opennpu.tools.output import write_text

LEVELS = ("op", "layer", "model", "serve")
LAYER_TOKENS = 64

_EPILOG = f"""levels:
  op      every op and kernel, on shapes of the model and at random, against PyTorch in float64
  layer   every layer (--ops: every op) against SGLang's class in float32 and bfloat16
  model   logits, perplexity and greedy text against a baseline; speed
  serve   SGLang's engine at several concurrencies

examples:
  npu-validate build/demo/smollm2 --report smollm2.html
  npu-validate build/demo/smollm2 --level layer --ops            the first op that is wrong
  npu-validate build/demo/smollm2 --level layer --replace 3      does the error come in before layer 4?
  npu-validate build/demo/smollm2 --level model --baseline test/e2e/data/smollm2_cpu.json --unit roofline
  npu-validate build/demo/smollm2 --level model --text book.txt --tokens 2048
  npu-validate build/demo/smollm2 --level serve --concurrency 1,8,32 --json serve.json

The exit code is 1 where a bound does not hold, 2 where the validation cannot be done.
The default text is {TEXT.name}, the Declaration of Independence."""


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.baseline != "hf" and args.text:
        parser.error("--text is for --baseline hf: a file brings its own text")
    errors = _errors()
    try:
        if args.work_dir:
            args.work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="npu-validate-") as scratch:
            levels = _Validation(args, args.work_dir or Path(scratch)).run(errors)
    except errors as error:
        print(f"npu-validate: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    for level in levels:
        if level.error:
            print(f"npu-validate: error: {level.error}", file=sys.stderr)
    if any(level.error for level in levels):
        return 2
    return 0 if all(level.holds for level in levels) else 1


def _errors() -> tuple[type[Exception], ...]:
    """What says that a validation, or one level of it, cannot be done."""
    from opennpu.dialects.diagnostics import CompileError
    from opennpu.runtime.chip import ChipError
    from opennpu.runtime.container import ContainerError
    from opennpu.runtime.device import NpuError
    from opennpu.runtime.language_model import KvPoolError
    from opennpu.runtime.program import ProgramError
    from opennpu.tools.baseline.files import BaselineError
    from opennpu.tools.validation.subject import ValidationError

    return (
        BaselineError, ChipError, CompileError, ContainerError, KvPoolError, NpuError, ProgramError,
        ValidationError, OSError, ValueError,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-validate",
        description="Compares a model on the virtual chip with independent references, level by level.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model_dir", type=Path, help="directory of a Hugging Face model")
    parser.add_argument("--level", choices=[*LEVELS, "all"], default="all", help="default: all")
    parser.add_argument(
        "--dtype", choices=["bf16", "fp32"], default="bf16", help="of the program; default: bf16"
    )
    parser.add_argument("--target", default="npu1-lite", help="a chip's name or file; default: npu1-lite")
    parser.add_argument("--engine", choices=["native", "reference"], default="native", help="default: native")
    parser.add_argument("--threads", type=count, help="worker threads; default: one for each core")
    parser.add_argument("--report", type=output_file, help="a page, one HTML file")
    parser.add_argument("--json", type=output_file, help="all figures")
    parser.add_argument(
        "--work-dir", type=output_folder, help="keep the archive and the program here and use them again"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random shapes and values; default: 0")
    layer = parser.add_argument_group("layer")
    layer.add_argument("--ops", action="store_true", help="every op, not only every layer")
    layer.add_argument(
        "--replace", metavar="LAYER", help="once more with this layer's output replaced by the reference's"
    )
    model = parser.add_argument_group("model and serve")
    model.add_argument(
        "--baseline", default="hf", help="a file of npu-baseline; default: hf, transformers now, here"
    )
    model.add_argument("--text", type=Path, help="running text, for --baseline hf")
    model.add_argument("--tokens", type=count, default=256, help="of the text, with hf; default: 256")
    model.add_argument(
        "--unit", choices=["tokens/s", "roofline"], default="tokens/s", help="of speed; default: tokens/s"
    )
    model.add_argument(
        "--min-parity", type=float, default=0.0, help="fail below this ratio to the baseline's speed"
    )
    model.add_argument("--concurrency", type=_numbers, default=[1, 4, 10], help="default: 1,4,10")
    return parser


class _Validation:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace, work_dir: Path):
        from opennpu.tools.validation.subject import Subject

        self.args = args
        options = (args.dtype, args.target, args.engine, args.threads)
        self.subject = Subject(args.model_dir, work_dir, *options)
        self.names = LEVELS if args.level == "all" else (args.level,)
        self._recording: dict | None = None

    def run(self, errors: tuple[type[Exception], ...]) -> list:
        """The levels, printed and written; one that raises one of `errors` has it as its `error`."""
        from opennpu.tools.validation.results import Level
        from tqdm import tqdm

        if not (self.args.model_dir / "config.json").is_file():
            raise ValueError(f"{self.args.model_dir} is not the directory of a model: it has no config.json")
        if self.args.baseline != "hf":
            self.recording(lambda stage: None)
        levels = []
        bar_format = "npu-validate |{bar:20}| {elapsed} {desc}"
        with tqdm(total=len(self.names), bar_format=bar_format, leave=False, disable=None) as bar:
            for name in self.names:
                start = time.perf_counter()
                try:
                    level = getattr(self, f"_{name}")(partial(self._tell, bar, name))
                except errors as error:
                    level = Level(name, error=str(error))
                level.seconds = time.perf_counter() - start
                levels.append(level)
                bar.update()
                bar.clear()
                self._print(level)
        self._write(levels)
        return levels

    def _tell(self, bar, name: str, stage: str) -> None:
        bar.set_description_str(f"{name}: {stage}")

    def recording(self, progress: Callable[[str], None]) -> dict:
        """The baseline: from its file, or recorded here."""
        if self._recording is None:
            from opennpu.tools.baseline import files
            from opennpu.tools.baseline.record import config_digest, record

            if self.args.baseline == "hf":
                dtypes = ["fp32"] if self.args.dtype == "fp32" else ["fp32", "bf16"]
                text = self.args.text or TEXT
                self._recording = record(
                    self.args.model_dir, text, dtypes, tokens=self.args.tokens,
                    progress=lambda stage: progress(f"baseline, {stage}"),
                )  # fmt: skip
            else:
                self._recording = files.load(Path(self.args.baseline))
                if self._recording["model"]["config_sha256"] != config_digest(self.args.model_dir):
                    raise files.BaselineError(
                        f"{self.args.baseline} was recorded of another model than that in"
                        f" {self.args.model_dir}: their config.json differ"
                    )
        return self._recording

    def _op(self, progress):
        from opennpu.tools.validation import op_level

        return op_level.validate(self.subject, self.args.seed, progress)

    def _layer(self, progress):
        from opennpu.tools.baseline.causal import load_tokenizer
        from opennpu.tools.validation import layer_level

        text = (self.args.text or TEXT).read_text(encoding="utf-8")
        tokens = load_tokenizer(self.args.model_dir)(text).input_ids[:LAYER_TOKENS]
        args = self.args
        return layer_level.validate(self.subject, tokens, args.ops, args.replace, progress=progress)

    def _model(self, progress):
        from opennpu.tools.validation import model_level

        recording = self.recording(progress)
        args = self.args
        return model_level.validate(self.subject, recording, args.unit, args.min_parity, progress)

    def _serve(self, progress):
        from opennpu.tools.validation import serve_level

        return serve_level.validate(self.subject, self.recording(progress), self.args.concurrency, progress)

    def _print(self, level) -> None:
        verdict = "ok" if level.holds else "NOT DONE" if level.error else "FAILED"
        lines = [
            f"== {level.name}: {verdict}, {len(level.checks)} bounds, {level.seconds:.1f} s",
            *level.lines,
        ]
        shown = [check for check in level.checks if not check.holds or len(level.checks) <= 12]
        write_text("\n".join([*lines, *map(str, shown)]) + "\n\n")

    def _write(self, levels) -> None:
        from opennpu.tools.validation.report import page, summary

        data = summary(self.args, levels, self._recording)
        if self.args.json:
            write_text(json.dumps(data, indent=1) + "\n", self.args.json)
        if self.args.report:
            write_text(page(data), self.args.report)


def _numbers(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
