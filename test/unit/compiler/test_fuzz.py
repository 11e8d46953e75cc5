"""Random graphs on every level: what was found stays mended, new ones agree, and what is wrong is found."""

from dataclasses import replace
from pathlib import Path

import fuzz_workers
import pytest
from opennpu.compiler.passes import registry
from opennpu.compiler.passes.registry import register_pass
from opennpu.compiler.rewriting import attr
from opennpu.compiler.tile_ir import walk
from opennpu.tools import npu_fuzz
from opennpu.tools.fuzzing import check as checking
from opennpu.tools.fuzzing.case import Case, random_case
from opennpu.tools.fuzzing.check import Refused, check
from opennpu.tools.fuzzing.operators import OPERATORS

CORPUS = sorted((Path(__file__).parents[2] / "fuzz_corpus").glob("*.json"))


REFUSED = {"attention-without-width": "attention with heads of no elements"}
"""The cases of the corpus that are refused, with the reason."""
GRAPHS, MOST_REFUSED = 12, 2
"""New graphs, none of which is refused now: a few may be, the test must not become empty."""


def refusal(case: Case) -> str | None:
    """None where all agree, else why the graph is refused."""
    try:
        assert check(case) is None
    except Refused as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_found(path):
    reason = refusal(Case.load(path))
    expected = REFUSED.get(path.stem)
    assert reason is None if expected is None else expected in (reason or "")


def test_new_graphs():
    refused = [(seed, reason) for seed in range(GRAPHS) if (reason := refusal(random_case(seed)))]
    assert len(refused) <= MOST_REFUSED, refused


def test_a_case_of_which_nothing_runs_is_refused():
    case = Case.load(next(path for path in CORPUS if path.stem == "slice-bounds-the-symbol"))
    assert "no T of [1]" in (refusal(replace(case, times=[1])) or "")


def test_the_graphs_use_every_operator():
    used = {name for seed in range(500) for name, _, _ in random_case(seed).steps}
    assert set(OPERATORS) - used == set()


def test_a_graph_is_the_same_for_the_same_seed():
    assert random_case(7).text() == random_case(7).text()


DIFFERENCE = Case(
    seed=0,
    inputs=[[["T", 8], "f32"], [["T", 8], "f32"]],
    weights=[],
    steps=[["tanh", [0], {}], ["sub", [2, 1], {}], ["sigmoid", [3], {}], ["softmax", [4], {"dim": 1}]],
    results=[5, 2],
    times=[7, 2],
    chip={"name": "fuzz", "cores": 3},
)


@pytest.fixture
def swapped(monkeypatch):
    """npu-canonicalize swaps the operands of every difference."""
    right = registry.find("npu-canonicalize")

    def run(module):
        right.run(module)
        for op in [op for op in walk(module.body) if op.name == "npu.binary" and attr(op, "op") == "sub"]:
            op.operands[0], op.operands[1] = op.operands[1], op.operands[0]

    register_pass("test-swapped", "a pass of a test")(run)
    passes = {**checking.PIPELINE, "npu": ("convert-torch-to-npu", "test-swapped")}
    monkeypatch.setattr(checking, "PIPELINE", passes)
    yield
    del registry.PASSES["test-swapped"]


def test_a_wrong_pass_is_found_and_the_graph_made_small(swapped, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("opennpu.tools.fuzzing.case.random_case", lambda seed: DIFFERENCE)
    outcome = npu_fuzz.outcome_of(0)
    assert outcome.kind == "difference" and outcome.text.startswith("npu: "), outcome.text
    path = tmp_path / "case.json"
    path.write_text(outcome.case)
    case = Case.load(path)
    assert [name for name, _, _ in case.steps] == ["sub"] and case.times == [7] and case.chip == {}
    assert npu_fuzz.main(["--replay", str(path)]) == 1
    assert "difference" in capsys.readouterr().out


def test_a_mended_case(tmp_path, capsys):
    path = tmp_path / "case.json"
    path.write_text(DIFFERENCE.text())
    assert npu_fuzz.main(["--replay", str(path)]) == 0
    assert capsys.readouterr().out == "all agree\n"


def outcomes(monkeypatch, worker, limit=60.0):
    """Of two graphs, in a process that runs `worker`."""
    monkeypatch.setattr(npu_fuzz, "_work", worker)
    return list(npu_fuzz.run(seed=5, graphs=2, minutes=None, limit=limit))


def test_a_process_that_dies_is_a_finding(monkeypatch):
    first, second = outcomes(monkeypatch, fuzz_workers.dies)
    assert (first.seed, first.kind, second.seed, second.kind) == (5, "ok", 6, "crash")
    assert '"seed": 6' in second.case


def test_a_graph_that_hangs_is_a_finding_and_the_text_tells_where(monkeypatch):
    first, second = outcomes(monkeypatch, fuzz_workers.hangs, limit=1.0)
    assert (first.seed, first.kind, second.seed, second.kind) == (5, "ok", 6, "hang")
    assert '"seed": 6' in second.case and "fuzz_workers.py" in second.text


def test_a_finding_outlives_a_hang_while_it_is_made_smaller(monkeypatch):
    worker = fuzz_workers.hangs_while_it_makes_a_case_smaller
    second = outcomes(monkeypatch, worker, limit=1.0)[1]
    assert (second.seed, second.kind, second.case, second.final) == (6, "difference", "{}", True)


def test_the_command(capsys):
    assert npu_fuzz.main(["--seed", "3000", "--graphs", "1"]) == 0
    assert capsys.readouterr().out.startswith("1 graphs: 1 ok")
