"""npu-serve over HTTP: what clients ask of an OpenAI-compatible server, against transformers."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import openai
import pytest
import requests
import torch
from opennpu.runtime.settings import settings
from serve_process import Serving, runs

PROMPT = "The capital of France is"
TOLERANCE = 1e-4  # of log-probabilities around -5 in float32, through two layers
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def model(tiny_llama, tmp_path_factory) -> Path:
    """With a chat template."""
    folder = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def report_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report") / "report.json"


@pytest.fixture(scope="module")
def server(model, report_file, tmp_path_factory):
    options = ["--dtype", "float32", "--max-total-tokens", "2048", "--max-running-requests", "16"]
    options += ["--enable-metrics", "--random-seed", "0"]
    options += ["--chunked-prefill-size", "64", "--report", str(report_file)]
    with Serving(model, tmp_path_factory.mktemp("server"), *options, OPENNPU_STRICT="1") as started:
        yield started


@pytest.fixture(scope="module")
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def reference(model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


@pytest.fixture(scope="module")
def letters(tokenizer) -> dict:
    """Random bytes are no text: where text is compared, a bias keeps it to letters."""
    biased = tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    return {"model": "m", "max_tokens": 12, "temperature": 0, "logit_bias": {str(i): 90 for i in biased}}


def generate(server: Serving, prompt: list[int], **options) -> dict:
    parameters = {"temperature": 0, "ignore_eos": True, "max_new_tokens": 12}
    options["sampling_params"] = parameters | options.get("sampling_params", {})
    answer = requests.post(f"{server.url}/generate", json={"input_ids": prompt, **options}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


@torch.no_grad()
def greedy(model, prompt: list[int], count: int, adjust=lambda logits, new: logits) -> list[int]:
    """`adjust` gets the last logits [vocabulary] and the tokens so far."""
    new: list[int] = []
    for _ in range(count):
        logits = model(torch.tensor([prompt + new])).logits[0, -1]
        new.append(int(adjust(logits, new).argmax()))
    return new


# ---- what is generated


def test_token_ids_are_those_of_transformers(server, reference):
    """A prompt in three chunks among them."""
    for prompt in ([7], list(range(2, 30)), [5 + i * 7 % 240 for i in range(150)]):
        answer = generate(server, prompt, return_logprob=True)
        assert answer["output_ids"] == greedy(reference, prompt, 12)
        assert answer["meta_info"]["prompt_tokens"] == len(prompt)
        assert answer["meta_info"]["finish_reason"] == {"type": "length", "length": 12}


def test_logprobs_of_a_completion(client, reference, tokenizer):
    prompt = tokenizer(PROMPT).input_ids
    logprobs = client.completions.create(
        model="m", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3
    ).choices[0].logprobs  # fmt: skip
    tokens = greedy(reference, prompt, 6)
    with torch.no_grad():
        scores = reference(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = scores.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(logprobs.token_logprobs), expected, rtol=0, atol=TOLERANCE)
    for row, top in zip(scores, logprobs.top_logprobs, strict=True):
        best = row.topk(3).values.tolist()
        assert sorted(top.values(), reverse=True) == pytest.approx(best, abs=TOLERANCE)


def test_chat(client, tokenizer, letters):
    """The template's text, completed."""
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    answer = client.chat.completions.create(messages=messages, **letters)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "user: Why is the sky blue?\nassistant:"
    completion = client.completions.create(prompt=text, **letters)
    assert answer.choices[0].message.content == completion.choices[0].text
    assert answer.usage.prompt_tokens == completion.usage.prompt_tokens == len(text)


def test_streaming(client, letters):
    whole = client.completions.create(prompt=PROMPT, **letters).choices[0].text
    chunks = [chunk for chunk in client.completions.create(prompt=PROMPT, stream=True, **letters)]
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert len(pieces) > 4 and "".join(pieces) == whole
    assert len(whole) == 12 and whole.isalpha()


def test_several_choices(client, letters):
    random = client.completions.create(prompt=PROMPT, n=4, **letters | {"temperature": 1}).choices
    assert len(random) == 4 and len({choice.text for choice in random}) > 1
    same = client.completions.create(prompt=PROMPT, n=2, **letters).choices
    assert len(same) == 2 and same[0].text == same[1].text


def test_stop_strings(client, letters):
    whole = client.completions.create(prompt=PROMPT, **letters).choices[0].text
    stop = whole[4:6]
    choice = client.completions.create(prompt=PROMPT, stop=["zzzzz", stop], **letters).choices[0]
    assert choice.text == whole[: whole.index(stop)] and choice.finish_reason == "stop"


def test_json_schemas(client, tokenizer):
    """A bias keeps to the shortest text: any white space would be JSON too."""
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "boolean"}, "reason": {"enum": ["light", "dust"]}},
        "required": ["answer", "reason"],
        "additionalProperties": False,
    }
    white = tokenizer(" \n\t\r").input_ids
    found = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "Is the sky blue?"}],
        max_tokens=60,
        n=3,
        logit_bias={str(token): -100 for token in white},
        response_format={"type": "json_schema", "json_schema": {"name": "sky", "schema": schema}},
    )
    for choice in found.choices:
        assert choice.finish_reason == "stop"
        answer = json.loads(choice.message.content)
        assert isinstance(answer["answer"], bool) and answer["reason"] in ("light", "dust")


# ---- sampling


PENALTIES = {
    "frequency_penalty": (1.9, lambda logits, counts, p: logits - p * counts),
    "presence_penalty": (1.9, lambda logits, counts, p: logits - p * (counts > 0)),
    "repetition_penalty": (
        1.9,
        lambda logits, counts, p: torch.where(
            counts == 0, logits, torch.where(logits < 0, logits * p, logits / p)
        ),
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_those_of_their_formulas(server, reference, name):
    """SGLang counts while the step before is still under way: from the second token on, the prompt's last
    token and all that was given but the latest."""
    strength, formula = PENALTIES[name]
    prompt = [9, 9, 9]

    def penalised(logits, new):
        counted = [prompt[-1], *new[:-1]] if new else []
        counts = torch.bincount(torch.tensor(counted, dtype=torch.int64), minlength=len(logits)).float()
        return formula(logits, counts, strength)

    expected = greedy(reference, prompt, 40, penalised)
    assert expected != greedy(reference, prompt, 40), "the penalty has no effect here: choose another prompt"
    parameters = {name: strength, "max_new_tokens": 40}
    assert generate(server, prompt, sampling_params=parameters)["output_ids"] == expected


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.002}])
def test_narrow_sampling_is_greedy(server, reference, narrow):
    parameters = {"temperature": 1.0, **narrow}
    prompt = [40, 41, 42]
    assert generate(server, prompt, sampling_params=parameters)["output_ids"] == greedy(reference, prompt, 12)


@pytest.mark.parametrize("kind", ["top_k", "top_p"])
def test_sampling_takes_only_what_it_may(server, reference, kind):
    prompt = [40, 41, 42]
    with torch.no_grad():
        best = reference(torch.tensor([prompt])).logits[0, -1].softmax(-1).topk(3)
    limit = {"top_k": 3} if kind == "top_k" else {"top_p": float(best.values.sum()) - 1e-3}
    parameters = {"temperature": 1.0, "max_new_tokens": 1, "n": 64, **limit}
    found = {answer["output_ids"][0] for answer in generate(server, prompt, sampling_params=parameters)}
    assert len(found) > 1 and found <= set(best.indices.tolist())


# ---- what goes wrong


LONG = {"sampling_params": {"max_new_tokens": 240}, "rid": "long"}


def decoded(server: Serving) -> float:
    """Tokens of running sequences so far, once no more come."""
    before, now = -1.0, metric(server, "opennpu:tokens_total", phase="decode")
    while now > before:
        time.sleep(1)
        before, now = now, metric(server, "opennpu:tokens_total", phase="decode")
    return now


def test_abort_request(server):
    found = []
    thread = threading.Thread(target=lambda: found.append(generate(server, [3], **LONG)))
    thread.start()
    while thread.is_alive():
        requests.post(f"{server.url}/abort_request", json={"rid": "long"}, timeout=60)
        time.sleep(0.02)
    finish = found[0]["meta_info"]["finish_reason"]
    assert finish["type"] == "abort" and len(found[0]["output_ids"]) < 240


def test_a_client_that_leaves(client, server):
    """Its request ends before its 240 tokens."""
    before = decoded(server)
    stream = client.completions.create(
        model="m", prompt="a", max_tokens=240, temperature=0, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    assert 0 < decoded(server) - before < 230


WRONG = {
    "a prompt that is too long": ("generate", {"input_ids": [5] * 400, "sampling_params": {}}),
    "no prompt": ("generate", {"sampling_params": {}}),
    "an unknown parameter": ("generate", {"input_ids": [5], "sampling_params": {"max_tokenz": 1}}),
    "a negative count": ("v1/completions", {"model": "m", "prompt": "a", "max_tokens": -1}),
    "a temperature below 0": ("v1/completions", {"model": "m", "prompt": "a", "temperature": -1.0}),
    "no messages": ("v1/chat/completions", {"model": "m", "messages": []}),
    "new weights": ("update_weights_from_disk", {"model_path": "somewhere"}),
    "an adapter": ("load_lora_adapter", {"lora_name": "a", "lora_path": "somewhere"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_refused_and_the_server_goes_on(server, reference, name):
    path, body = WRONG[name]
    answer = requests.post(f"{server.url}/{path}", json=body, timeout=60)
    assert 400 <= answer.status_code < 500, answer.text
    assert generate(server, [11, 12])["output_ids"] == greedy(reference, [11, 12], 12)


def test_an_update_of_weights_names_the_remedy(server, model):
    answer = requests.post(
        f"{server.url}/update_weights_from_disk", json={"model_path": str(model)}, timeout=60
    )
    assert answer.json()["success"] is False
    assert "Start the server with the new weights" in answer.json()["message"]


# ---- what it tells of itself


def metric(server: Serving, name: str, **labels: str) -> float:
    """The sum over what has these labels."""
    found = 0.0
    for line in requests.get(f"{server.url}/metrics", timeout=60).text.splitlines():
        if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def test_health_and_model(server, model):
    assert requests.get(f"{server.url}/health", timeout=60).status_code == 200
    assert requests.get(f"{server.url}/get_model_info", timeout=60).json()["model_path"] == str(model)


def test_metrics_count_what_ran(server):
    """A prompt of 100 tokens in two chunks; of 9 new tokens the first comes with the prompt, and the
    scheduler launches one step more before it knows that it has ended."""
    names = {
        "launches": ("opennpu:launches_total", "prefill"),
        "steps": ("opennpu:launches_total", "decode"),
        "prompt": ("opennpu:tokens_total", "prefill"),
        "new": ("opennpu:tokens_total", "decode"),
    }

    def counts():
        return {key: metric(server, name, phase=phase) for key, (name, phase) in names.items()}

    decoded(server)
    before = counts() | {"bytes": metric(server, "opennpu:device_bytes_loaded_total")}
    generate(server, [200 + i % 50 for i in range(100)], sampling_params={"max_new_tokens": 9})
    decoded(server)
    rise = {key: value - before[key] for key, value in counts().items()}
    assert (rise["launches"], rise["prompt"]) == (2, 100)
    assert rise["steps"] == rise["new"] and 8 <= rise["new"] <= 9
    loaded, least = "opennpu:device_bytes_loaded_total", "opennpu:device_least_cycles_total"
    assert metric(server, loaded) > before["bytes"]
    cycles = metric(server, loaded) / settings().load_chip().hbm_bytes_per_cycle
    assert metric(server, least) > 0.999 * cycles  # rounding of the sum
    assert metric(server, "opennpu:fallbacks_total") == 0
    pages, used = metric(server, "opennpu:kv_pages"), metric(server, "opennpu:kv_pages_used")
    assert pages == 2048 // 16 and 100 // 16 <= used < pages


@pytest.mark.serving  # needs benchmarks/requirements.txt
def test_bench_serving(server, model, tmp_path):
    command = [sys.executable, "-m", "sglang.bench_serving", "--backend", "sglang-oai", "--disable-tqdm"]
    command += ["--base-url", server.url, "--tokenizer", str(model), "--model", str(model)]
    command += ["--dataset-name", "random-ids", "--num-prompts", "4", "--random-range-ratio", "1"]
    command += ["--random-input-len", "20", "--random-output-len", "8"]
    command += ["--output-file", str(tmp_path / "bench.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Successful requests:                     4 " in done.stdout


# ---- the end


def under_way(server: Serving, count: int):
    """A stream of `count` requests of 200 new tokens each, of which the first has begun."""
    body = {"input_ids": [[5, 6, 7]] * count, "stream": True}
    body["sampling_params"] = {"temperature": 0, "ignore_eos": True, "max_new_tokens": 200}
    response = requests.post(f"{server.url}/generate", json=body, stream=True, timeout=120)
    lines = (json.loads(line[6:]) for line in response.iter_lines() if line[6:7] == b"{")
    assert next(lines)["meta_info"]["completion_tokens"] < 200
    return lines


def test_ctrl_c_ends_it_cleanly_and_it_reports(server, report_file):
    """The last test of this server. What is under way is answered, and then nothing is left."""
    generate(server, [5, 6, 7])
    shared, processes = server.shared_memory(), server.processes()
    assert shared and len(processes) >= 3
    lines = under_way(server, 3)
    server.process.send_signal(signal.SIGINT)
    ends = [line["meta_info"] for line in lines if line["meta_info"]["finish_reason"]]
    assert [end["completion_tokens"] for end in ends] == [200] * 3
    assert server.process.wait(90) == 0, server.log_text()[-4000:]
    assert "npu-serve: ending; requests under way have 30 s" in server.log_text()
    assert not [name for name in shared if Path(name).exists()]
    assert not [pid for pid in processes.values() if runs(pid)]
    report = json.loads(report_file.read_text())
    assert report["requests"] >= 1 and report["output_tokens"] > report["requests"]
    assert report["phases"].keys() == {"prefill", "decode"}
    for side in ("measured", "estimated"):
        assert report[side]["inter_token"]["p50"] > 0 and report[side]["ttft"]["p50"] > 0
    assert report["estimated"]["busy_seconds"] < report["measured"]["busy_seconds"]
    assert f"{report['requests']} requests, {report['output_tokens']} tokens" in server.log_text()


def test_a_killed_scheduler_ends_the_server(model, tmp_path):
    """Its checkpoint is in float32: it is served in bfloat16 unless that is asked for."""
    with Serving(model, tmp_path, "--max-total-tokens", "512") as started:
        shared, processes = started.shared_memory(), started.processes()
        (scheduler,) = (pid for title, pid in processes.items() if title.startswith("sglang::scheduler"))
        subprocess.run(["kill", "-9", str(scheduler)], check=True)
        assert started.process.wait(90) == 1
    log = started.log_text()
    assert "dtype: torch.bfloat16" in log and "the model is one program" in log
    assert f"the server has ended: its scheduler process {scheduler} was killed (SIGKILL)" in log
    assert not [name for name in shared if Path(name).exists()]
    assert not [pid for pid in processes.values() if runs(pid)]


def test_an_architecture_that_nobody_knows(model, tmp_path):
    """It is found in the scheduler's process; the last line says what was wrong."""
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text()) | {"architectures": ["FooForCausalLM"]}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    started = Serving(tmp_path / "model", tmp_path)
    started.launch()
    assert started.process.wait(300) == 1
    last = started.log_text().splitlines()[-1]
    assert (
        last.startswith("npu-serve: error: the server has ended: ValueError: ") and "FooForCausalLM" in last
    )
