"""Workers of npu-fuzz that go wrong in their second graph."""

import os
import time

from opennpu.tools import npu_fuzz


def dies(seed, end, deadline, smaller, limit, trace, send):
    send.send(npu_fuzz.Outcome(seed, "ok"))
    os._exit(3)


def hangs(seed, end, deadline, smaller, limit, trace, send):
    _with(lambda watch: time.sleep(600), seed, end, deadline, smaller, limit, trace, send)


def hangs_while_it_makes_a_case_smaller(seed, end, deadline, smaller, limit, trace, send):
    def outcomes(watch):
        yield npu_fuzz.Outcome(seed + 1, "difference", "npu: difference", "{}", final=False)
        watch()
        time.sleep(600)

    _with(outcomes, seed, end, deadline, smaller, limit, trace, send)


def _with(second, seed, *args):
    """The real worker, in which the first graph is fine and the second one does `second`."""

    def outcomes_of(graph, smaller, watch):
        watch()
        return [npu_fuzz.Outcome(graph, "ok")] if graph == seed else second(watch)

    npu_fuzz.outcomes_of = outcomes_of
    npu_fuzz._work(seed, *args)
