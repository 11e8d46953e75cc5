"""Workspace slots: aligned, large enough, reused only when nobody needs them."""

from hypothesis import given
from hypothesis import strategies as st
from opennpu.compiler.kernels.workspace import Workspace, padded
from opennpu.dialects.symbols import Sym

monomials = st.lists(st.sampled_from(["B", "T"]), max_size=2).map(lambda m: tuple(sorted(m)))
sizes = st.dictionaries(monomials, st.integers(-5, 5000), min_size=1, max_size=4).map(Sym)


@given(sizes, st.integers(0, 100), st.integers(0, 100))
def test_padded_is_a_multiple_of_64_and_no_less(size, tokens, sequences):
    values = {"T": tokens, "B": sequences}
    assert padded(size).evaluate(values) % 64 == 0
    assert padded(size).evaluate(values) >= size.evaluate(values)


def slot(workspace, nbytes, users=1):
    taken = workspace.allocate(nbytes)
    workspace.retain(taken, users)
    return taken


def test_a_slot_is_reused_after_its_last_release():
    workspace = Workspace()
    a = slot(workspace, Sym.of("64*T"), users=2)
    workspace.release(a)
    assert slot(workspace, Sym.of("64*T")) != a
    workspace.release(a)
    assert slot(workspace, Sym.of("60*T")) == a  # of the same size once padded
    assert workspace.bytes == Sym.of("128*T")


def test_slots_of_different_expressions_stay_apart():
    workspace = Workspace()
    a = slot(workspace, Sym.of("64*T"))
    workspace.release(a)
    b = slot(workspace, Sym.of("64*B"))
    assert str(b.offset) == "64*T" and str(workspace.bytes) == "64*B + 64*T"


def test_a_slot_of_no_bytes_is_a_slot_of_its_own():
    workspace = Workspace()
    assert slot(workspace, 0) != slot(workspace, Sym.of("64*T"))
