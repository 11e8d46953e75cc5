"""The performance gate: a regression is found, noise is not."""

import json
import random

import gate
import gating
import pytest


def runs(fraction: float, noise: float, count: int, seed: int) -> list[gating.Fractions]:
    """Runs of one figure whose noise is a normal distribution's deviation."""
    generator = random.Random(seed)
    return [{"x": fraction * (1 + noise * generator.gauss())} for _ in range(count)]


def state(recorded: list[gating.Fractions], now: list[gating.Fractions], benchmark: str = "engine") -> str:
    (verdict,) = gating.compare(benchmark, gating.record(recorded), now)
    return verdict.state


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.03, 0.1])
def test_noise_is_no_regression(noise):
    """Of 300 checks of an unchanged program at most one in a hundred fails."""
    states = [state(runs(0.4, noise, 5, seed), runs(0.4, noise, 3, seed + 1000)) for seed in range(300)]
    assert states.count("REGRESSED") <= 3


@pytest.mark.parametrize(("noise", "loss"), [(0.0, 0.06), (0.01, 0.1), (0.03, 0.25), (0.1, 0.6)])
def test_a_regression_is_found(noise, loss):
    """In nine of ten checks at least, from about six deviations on."""
    slower = 0.4 * (1 - loss)
    states = [state(runs(0.4, noise, 5, seed), runs(slower, noise, 3, seed + 1000)) for seed in range(300)]
    assert states.count("REGRESSED") >= 270


def test_the_timing_model_has_no_noise():
    recorded = [{"x": 0.9}, {"x": 0.9}]
    assert state(recorded, [{"x": 0.898}], "chip") == "REGRESSED"
    assert state(recorded, [{"x": 0.898}], "engine") == "ok"
    assert state(recorded, [{"x": 0.8995}], "chip") == "ok"
    assert state(recorded, [{"x": 0.91}], "chip") == "faster"


def test_figures_that_come_and_go():
    verdicts = gating.compare("engine", gating.record([{"x": 1, "y": 1}] * 2), [{"x": 1, "z": 2}])
    assert [(v.name, v.state, v.fails) for v in verdicts] == [
        ("x", "ok", False),
        ("y", "MISSING", True),
        ("z", "new", False),
    ]
    assert "| y | 1.000 | 0.950 | – | MISSING |" in gating.table(verdicts)


def test_what_cannot_be_recorded():
    with pytest.raises(ValueError, match="at least 2"):
        gating.record([{"x": 1}])
    with pytest.raises(ValueError, match="different figures"):
        gating.record([{"x": 1}, {"y": 1}])
    assert gating.record([{"x": 1}, {"x": 2}])["x"].tells_nothing


def test_fractions_of_the_benchmarks():
    launch = {"name": "decode", "of_limit": 0.6}
    assert gating.of_engine({"launches": [launch]}) == {"engine: decode": pytest.approx(0.6)}
    figures = [("add", "cpu", 2.0), ("add", "opennpu", 8.0), ("launch", "opennpu", 1.0)]
    rows = [{"name": n, "device": d, "total_s": s} for n, d, s in figures]
    assert gating.of_torch_device(rows) == {"torch: add": 0.25}
    row = {"model": "demo", "chip": "npu1", "launch": "decode", "of_roofline": 0.9}
    assert gating.of_chip([row]) == {"chip: demo on npu1, decode": 0.9}
    speeds = {"opennpu": [2, 6, 4], "in-tree f32": [1, 2, 1], "no model, in-tree": [9, 9, 9]}
    served = [
        {"server": name, "concurrency": 8, "output_tokens_per_s": s}
        for name, all_ in speeds.items()
        for s in all_
    ]
    assert gating.of_serving({"runs": served}) == {"serving: concurrency 8, over in-tree f32": 3}
    assert gating.limits_of_serving({"runs": served}) == {"in-tree f32, concurrency 8, tokens/s": 1}
    assert gating.limits_of_torch_device(rows) == {"add, PyTorch, s": 2.0}
    of_chip = gating.limits_of_chip([row | {"seconds": 2.0}])
    assert of_chip == {"demo on npu1, decode, roofline, s": pytest.approx(1.8)}


@pytest.fixture
def measured(monkeypatch):
    """Benchmarks that give fractions by themselves: the list is theirs, in order."""
    fractions: list[float] = []
    monkeypatch.setattr(gate, "_run", lambda *_: fractions.pop(0))
    monkeypatch.setitem(gating.FRACTIONS, "engine", lambda fraction: {"x": fraction})
    monkeypatch.setitem(gating.LIMITS, "engine", lambda fraction: {"read": 10.0})
    return fractions


def test_record_and_check(tmp_path, measured, capsys):
    options = ["--benchmarks", "engine", "--results", str(tmp_path)]
    assert gate.main(["check", *options]) == 2
    assert "no baseline of engine" in capsys.readouterr().err
    measured[:] = [0.50, 0.51, 0.52]
    assert gate.main(["record", *options]) == 0
    (path,) = tmp_path.iterdir()
    assert path.stem == gate.machine_class(gate.machine())
    recorded = json.loads(path.read_text())["benchmarks"]["engine"]
    assert recorded["runs"] == 3 and recorded["limits"] == {"read": 10.0}
    assert recorded["figures"]["x"] == {"fraction": 0.51, "noise": pytest.approx(0.02 / 0.51)}
    measured[:] = [0.1, 0.5, 0.9]
    assert gate.main(["record", *options, "--results", str(tmp_path / "noisy")]) == 0
    assert "x: too noisy to tell a loss, not recorded" in capsys.readouterr().err
    measured[:] = [0.30, 0.50, 0.51]
    assert gate.main(["check", *options]) == 0
    measured[:] = [0.30, 0.44, 0.51]
    capsys.readouterr()
    assert gate.main(["check", *options]) == 1
    output = capsys.readouterr()
    assert "| x | 0.510 | 0.480 | 0.440 | REGRESSED |" in output.out
    assert "slower than recorded, or gone: x" in output.err


def test_a_file_of_a_faster_machine_fails(tmp_path, measured, capsys):
    """Every recorded fraction is raised by a half, as if the program had become slower by a third."""
    options = ["--benchmarks", "engine", "--results", str(tmp_path)]
    measured[:] = [0.50, 0.51, 0.52]
    gate.main(["record", *options])
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    content["benchmarks"]["engine"]["figures"]["x"]["fraction"] *= 1.5
    path.write_text(json.dumps(content))
    measured[:] = [0.50, 0.51, 0.52]
    assert gate.main(["check", *options]) == 1
    path.write_text(json.dumps(content | {"format": 0}))
    assert gate.main(["check", *options]) == 2
    assert "record again" in capsys.readouterr().err


def test_a_benchmark_that_fails_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gate.COMMANDS, "engine", ["engine.py", "--model", tmp_path / "missing"])
    assert gate.main(["record", "--benchmarks", "engine", "--results", str(tmp_path)]) == 2
    assert "engine.py ended with status 1" in capsys.readouterr().err


def test_every_benchmark_has_its_fractions_and_limits():
    assert gate.COMMANDS.keys() == gating.FRACTIONS.keys() == gating.LIMITS.keys()
    for script, *_ in gate.COMMANDS.values():
        assert (gate.HERE / script).exists()


def test_machine_classes_are_file_names():
    machine = {"cpu": "AMD EPYC 9B45 (128-Core)", "features": ["avx2", "fma"], "cpus": 4}
    assert gate.machine_class(machine) == "amd-epyc-9b45-128-core-4-cpus-avx2-fma"
