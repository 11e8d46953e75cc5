"""Makes a case with a finding smaller, as long as it has a finding of the same kind at the same level."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from opennpu.runtime.dtypes import DTYPES
from opennpu.tools.fuzzing.case import TWINS, Case
from opennpu.tools.fuzzing.check import Finding, check
from opennpu.tools.fuzzing.operators import OPERATORS

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def minimised(case: Case, finding: Finding, watch: Callable[[], None]) -> Iterator[tuple[Case, Finding]]:
    """Each smaller case, with its finding, that greedy steps lead to.

    `watch` is called before every check.
    """

    def found_in(smaller: Case) -> Finding | None:
        watch()
        try:
            found = check(smaller)
        except Exception:  # a refusal, or a graph that PyTorch cannot run
            return None
        same = found is not None and (found.level, found.kind) == (finding.level, finding.kind)
        return found if same else None

    while smallest := next(((c, found) for c in _smaller(case) if (found := found_in(c))), None):
        yield smallest
        case = smallest[0]


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with less in them, those with the least first."""
    if len(case.results) > 1:
        yield from (pruned(replace(case, results=[result])) for result in case.results)
    first = len(case.inputs) + len(case.weights)
    for number in range(len(case.steps)):
        if (cut := _as_input(case, first + number)) is not None:
            yield cut
    for number, (_, operands, _) in enumerate(case.steps):
        for operand in operands:
            yield _bypassed(case, first + number, operand)
    if len(case.times) > 1:
        yield from (replace(case, times=[time]) for time in case.times)
    if case.chip:
        yield replace(case, chip={})


def pruned(case: Case) -> Case:
    """Without the values that no result needs."""
    first, needed = len(case.inputs) + len(case.weights), set(case.results)
    for number in reversed(range(len(case.steps))):
        if first + number in needed:
            needed.update(case.steps[number][1])
    return _renumbered(case, sorted(needed))


def _renumbered(case: Case, kept: list[int]) -> Case:
    new = {old: i for i, old in enumerate(kept)}
    inputs, weights = len(case.inputs), len(case.weights)
    return replace(
        case,
        inputs=[case.inputs[i] for i in kept if i < inputs],
        weights=[case.weights[i - inputs] for i in kept if inputs <= i < inputs + weights],
        steps=[
            [name, [new[o] for o in operands], params]
            for i in kept
            if i >= inputs + weights
            for name, operands, params in [case.steps[i - inputs - weights]]
        ],
        results=[new[i] for i in case.results],
    )


def _bypassed(case: Case, value: int, by: int) -> Case:
    """What used the value uses one of its operands."""

    def other(i: int) -> int:
        return by if i == value else i

    steps = [[name, [other(o) for o in operands], params] for name, operands, params in case.steps]
    return pruned(replace(case, steps=steps, results=[other(i) for i in case.results]))


def _as_input(case: Case, value: int) -> Case | None:
    """The value becomes an input, where its extents are numbers or T."""
    twins = [_values(case, time)[value] for time in TWINS]
    extents: list = []
    for small, large in zip(*(x.shape for x in twins), strict=True):
        if small != large and (small, large) != TWINS:
            return None
        extents.append(small if small == large else "T")
    at = len(case.inputs)

    def moved(i: int) -> int:
        return at if i == value else i + (i >= at)

    steps = [[name, [moved(o) for o in operands], params] for name, operands, params in case.steps]
    changed = replace(
        case,
        inputs=[*case.inputs, [extents, NAMES[twins[0].dtype]]],
        steps=steps,
        results=[moved(i) for i in case.results],
    )
    return pruned(changed)


def _values(case: Case, time: int) -> list:
    values = [*case.tensors(time), *case.parameters()]
    for name, operands, params in case.steps:
        values.append(OPERATORS[name].run(*(values[i] for i in operands), **params))
    return values
