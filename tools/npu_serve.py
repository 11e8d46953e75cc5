"""npu-serve: SGLang's server on the chip."""

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from dataclasses import Field, fields
from pathlib import Path

from opennpu.dialects.diagnostics import CompileError
from opennpu.runtime.chip import ChipError
from opennpu.runtime.settings import Settings, read, variable
from opennpu.runtime.settings_page import default_text
from opennpu.sglang_integration.model_folder import read_config
from opennpu.sglang_integration.server import REFUSED, Server
from opennpu.tools.arguments import output_file
from opennpu.tools.output import write_text

_EPILOG = """examples:
  npu-serve build/demo/smollm2
  npu-serve build/demo/smollm2 --port 8000 --opennpu-strict --enable-metrics
  npu-serve build/demo/smollm2 --report serving.json
  npu-serve build/demo/smollm2 --opennpu-chip npu1 --max-total-tokens 65536 --chunked-prefill-size 512

Options that are not listed are SGLang's: `python -m sglang.launch_server --help`.
"""

PATIENCE = 30
"""Seconds that requests under way have to end after a signal; a second signal ends them at once."""


def main(argv: list[str] | None = None) -> int:
    args, further = _parser().parse_known_args(argv)
    os.environ.update(_environment(args))
    try:
        read_config(args.model_dir)
        read(os.environ).load_chip()
        _check_port(args.host, args.port)
    except (CompileError, ChipError, ValueError, OSError) as error:
        print(f"npu-serve: error: {error}", file=sys.stderr)
        return 1
    place = ["--model-path", str(args.model_dir), "--host", args.host, "--port", str(args.port)]
    with contextlib.ExitStack() as stack:
        if args.report is not None and not os.environ.get("OPENNPU_REPORT"):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ["OPENNPU_REPORT"] = str(Path(folder, "launches.jsonl"))
        with Server([*place, *further]) as server:
            watch = _Watch(server, args)
            code = watch.until_the_end()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if args.report is not None and watch.ready_at:
            _report(Path(os.environ["OPENNPU_REPORT"]), watch.ready_at, args.report)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="npu-serve",
        usage="npu-serve MODEL_DIR [options] [SGLang's options]",
        description="Serves a language model through SGLang, with an OpenAI-compatible interface.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model_dir", metavar="MODEL_DIR", type=Path, help="a Hugging Face directory")
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1; 0.0.0.0 for all interfaces")
    parser.add_argument("--port", type=int, default=30000, help="default: 30000")
    parser.add_argument(
        "--report",
        metavar="FILE",
        nargs="?",
        type=output_file,
        const=Path(),
        help="when the server ends, tell what its launches would have taken on the chip; FILE has it as JSON",
    )
    settings = parser.add_argument_group("settings (docs/settings.md); the environment's where not given")
    for known in fields(Settings):
        _add_setting(settings, known)
    return parser


def _add_setting(group, known: Field) -> None:
    option = "--" + variable(known.name).lower().replace("_", "-")
    text = f"{known.metadata['meaning']}; default: {default_text(known)}".replace("`", "")
    if known.type is bool:
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
    else:
        group.add_argument(option, metavar=known.type.__name__.upper(), help=text)


def _environment(args: argparse.Namespace) -> dict[str, str]:
    """The variables of the settings that were given as options."""
    given = {name: getattr(args, name.lower()) for name in (variable(f.name) for f in fields(Settings))}
    return {
        name: str(int(value) if type(value) is bool else value)
        for name, value in given.items()
        if value is not None
    }


def _report(log: Path, since: float, output: Path) -> None:
    from opennpu.runtime import serving_report
    from opennpu.tools.npu_sim import ERRORS

    try:
        launches = serving_report.Log.read(log, since)
        print(f"npu-serve: timing {len(launches.launches)} launches", file=sys.stderr)
        found = serving_report.report(launches, read(os.environ).chip)
    except (serving_report.LogError, *ERRORS) as error:
        print(f"npu-serve: no report: {error}", file=sys.stderr)
        return
    write_text("\n".join(serving_report.table(found)) + "\n")
    if output.name:
        write_text(json.dumps(found.to_dict(), indent=1) + "\n", output)


def _check_port(host: str, port: int) -> None:
    """Raises OSError: told now, not after the model has been loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise OSError(f"cannot listen on {host}:{port}: {error}; choose another with --port") from error


class _Watch:
    """Tells when the server is ready, hands it signals, and tells how it ended."""

    def __init__(self, server: Server, args: argparse.Namespace):
        self.server = server
        self.url = f"http://{args.host}:{args.port}"
        self.started, self.ready_at, self.deadline = time.monotonic(), None, None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def until_the_end(self) -> int:
        told = False
        while (code := self.server.wait(0.5)) is None:
            if self.deadline and not told:
                told = True
                print(
                    f"npu-serve: ending; requests under way have {PATIENCE} s, a second signal cuts them off",
                    file=sys.stderr,
                )
            if self.server.ready.is_set() and not self.ready_at:
                self._tell_ready()
            if self.deadline and time.monotonic() > self.deadline:
                print(f"npu-serve: requests still under way after {PATIENCE} s are cut off", file=sys.stderr)
                self.server.kill()
        if self.deadline or code == 0:
            return 0
        if code != REFUSED:
            print(f"npu-serve: error: the server has ended: {self.server.reason()}", file=sys.stderr)
        return REFUSED if code == REFUSED else 1

    def _stop(self, number: int, frame) -> None:
        if self.deadline:
            self.server.kill()
            return
        self.deadline = time.monotonic() + PATIENCE
        self.server.signal(number)

    def _tell_ready(self) -> None:
        self.ready_at = time.monotonic()
        print(f"npu-serve: ready at {self.url} after {self.ready_at - self.started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
