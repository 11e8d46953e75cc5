"""One `sglang.Engine` in a process of its own, as a user's script makes it: SGLang's state is global.

Run as a script it reads {"engine": {…}, "calls": [{…}, …]} from standard input, the arguments of the engine
and of its `generate`, or of a request with `input_embeds`, and writes the answers to the file of its
argument.
Everything runs strict: what falls back to the host, or operator by operator, is an error.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ENGINE = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "skip_server_warmup": True,
    "max_total_tokens": 2048,
    "max_running_requests": 16,
    "page_size": 16,
    "random_seed": 0,
    "log_level": "info",
}


def generate(folder: Path, model: Path, calls: list[dict], environment: dict | None = None, **engine):
    """The answers of an engine to each of the calls, and its log; AssertionError when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    request = {"engine": ENGINE | {"model_path": str(model)} | engine, "calls": calls}
    result = subprocess.run(
        [sys.executable, __file__, str(folder / "answers.json")],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=540,
        env=os.environ | {"SGLANG_PLATFORM": "opennpu", "OPENNPU_STRICT": "1"} | (environment or {}),
    )
    assert result.returncode == 0, result.stderr[-8000:]
    return json.loads((folder / "answers.json").read_text()), result.stderr


def greedy(prompts: list[list[int]], tokens: int, **options) -> dict:
    """The call for the most likely tokens after each prompt."""
    parameters = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    return {"input_ids": prompts, "sampling_params": parameters, **options}


def main() -> None:
    import sglang

    request = json.load(sys.stdin)
    engine = sglang.Engine(**request["engine"])
    try:
        answers = [ask(engine, call) for call in request["calls"]]
    finally:
        engine.shutdown()
    Path(sys.argv[1]).write_text(json.dumps(answers))


def ask(engine, call: dict):
    if not call.get("input_embeds"):
        return engine.generate(**call)
    from sglang.srt.managers.io_struct import GenerateReqInput

    answers = engine.tokenizer_manager.generate_request(GenerateReqInput(**call), None)
    return engine.loop.run_until_complete(anext(answers))


if __name__ == "__main__":
    main()
