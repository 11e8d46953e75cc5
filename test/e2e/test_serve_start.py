"""What npu-serve says of a wrong command, before anything has been loaded."""

import json
import re
import socket
import subprocess
import sys

import pytest
import requests
from opennpu.tools import npu_serve
from serve_process import Serving
from tiny_models import run_tool


@pytest.fixture
def model(tmp_path):
    """As much as is looked at."""
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "model.safetensors").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--opennpu-chip", "npu99"], "no chip 'npu99': give the name of a chip (npu1, npu1-lite)"),
        (["--opennpu-threads", "many"], "OPENNPU_THREADS must be an integer"),
        (["--port", "99999"], "cannot listen on 127.0.0.1:99999"),
    ],
)
def test_wrong_options(model, monkeypatch, capsys, options, message):
    monkeypatch.setattr("os.environ", dict(npu_serve.os.environ))
    assert npu_serve.main([str(model), *options]) == 1
    assert message in capsys.readouterr().err


def test_a_port_in_use(model, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert npu_serve.main([str(model), "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another with --port" in capsys.readouterr().err


def test_no_model(tmp_path, capsys):
    for folder, message in ((tmp_path / "nothing", "is not a directory"), (tmp_path, "has no config.json")):
        assert npu_serve.main([str(folder)]) == 1
        assert message in capsys.readouterr().err


REFUSED = {
    "--tp-size": {"tp_size": 2},
    "--dp-size": {"dp_size": 2},
    "--pp-size": {"pp_size": 2},
    "--nnodes": {"nnodes": 2, "dist_init_addr": "127.0.0.1:9"},
    "--dtype": {"dtype": "half"},
    "--quantization": {"quantization": "fp8"},
    "--kv-cache-dtype": {"kv_cache_dtype": "fp8_e5m2"},
    "--speculative-algorithm": {"speculative_algorithm": "NGRAM"},
    "--enable-lora": {"enable_lora": True},
    "--lora-paths": {"lora_paths": ["a=b"]},
    "--attention-backend": {"attention_backend": "triton"},
    "--disaggregation-mode": {"disaggregation_mode": "prefill"},
    "--enable-torch-compile": {"enable_torch_compile": True},
    "--hicache-storage-backend": {"enable_hierarchical_cache": True, "hicache_storage_backend": "file"},
    "--cpu-offload-gb": {"cpu_offload_gb": 4},
}

RESOLVE = """
import json, sys
from sglang.srt.arg_groups.overrides import resolved_view
from sglang.srt.server_args import ServerArgs
answers = {}
for name, given in json.loads(sys.argv[2]).items():
    try:
        arguments = ServerArgs(model_path=sys.argv[1], **given)
        arguments.resolve_once()
        view = resolved_view(arguments)
        answers[name] = [view.dtype, view.page_size, view.attention_backend, view.sampling_backend]
    except ValueError as error:
        answers[name] = str(error)
print(json.dumps(answers))
"""


def test_arguments_of_sglang(tiny_llama, tmp_path):
    """Those that are not supported are named with a remedy; others get the platform's defaults."""
    cases = REFUSED | {"defaults": {}, "given": {"dtype": "float32", "page_size": 64}}
    command = [sys.executable, "-W", "ignore", "-c", RESOLVE, str(tiny_llama), json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for option in REFUSED:
        assert answers[option].startswith(option) and "; " in answers[option]
    assert answers["defaults"] == ["bfloat16", 16, "opennpu", "pytorch"]
    assert answers["given"] == ["float32", 64, "opennpu", "pytorch"]


def test_refused_arguments_end_the_command(tiny_llama):
    done = run_tool("npu_serve", tiny_llama, "--port", free_port(), "--tp-size", "2", "--quantization", "fp8")
    assert done.returncode == 2
    assert "npu-serve: error: --tp-size 2: not supported on the device opennpu" in done.stderr
    assert "--quantization fp8: not supported" in done.stderr and "Traceback" not in done.stderr


def test_a_quantized_checkpoint(tiny_llama, tmp_path):
    config = json.loads((tiny_llama / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "awq"}})
    )
    (tmp_path / "model.safetensors").symlink_to(tiny_llama / "model.safetensors")
    done = run_tool("npu_serve", tmp_path, "--port", free_port())
    assert done.returncode == 2 and "is quantized (awq): not supported" in done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.serving  # two starts
def test_a_chip_with_little_memory(tiny_llama, tmp_path, monkeypatch):
    """What is said to be enough is enough."""
    monkeypatch.setenv("OPENNPU_HBM_BYTES", "100000")
    done = run_tool("npu_serve", tiny_llama, "--port", free_port())
    assert done.returncode == 2
    enough = re.search(r"the chip has 0.1 MB. Set OPENNPU_HBM_BYTES to (\d+) or more", done.stderr)
    monkeypatch.setenv("OPENNPU_HBM_BYTES", enough[1])
    with Serving(tiny_llama, tmp_path) as server:
        pool = re.search(r"KV pool of (\d+) tokens", server.log_text())
        assert int(pool[1]) > 1000
        body = {"input_ids": [5, 6, 7], "sampling_params": {"max_new_tokens": 4}}
        assert requests.post(f"{server.url}/generate", json=body, timeout=120).ok
