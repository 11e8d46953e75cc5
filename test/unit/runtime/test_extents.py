"""The runtime's extents against Python's own arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opennpu.runtime.extents import Extent

VALUES = {"T": 7, "B": 3, "P": 11}


@pytest.mark.parametrize(
    "text", ["5", "T", "B + 1", "1152*T + 64", "B*T - 2*P", "-(T - 1)*(T + 1)", "T**2*B", 12]
)
def test_evaluates_as_python_does(text):
    assert Extent.parse(text).evaluate(VALUES) == eval(str(text), {}, VALUES)


@pytest.mark.parametrize(
    "text", ["", "T / 2", "f(T)", "T.x", "1.5", "T if B else 1", "(" * 500, "T**B", "T**99"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="not a polynomial"):
        Extent.parse(text)


@given(st.integers(1, 50), st.integers(-50, 50), st.integers(0, 100))
def test_solve_inverts_evaluate(a, b, x):
    extent = Extent.parse(f"{a}*X + {b}")
    assert extent.solve(extent.evaluate({"X": x}), {}) == ("X", x)


def test_solve_with_other_symbols():
    extent = Extent.parse("B*T + 1")
    assert extent.solve(22, {}) is None
    assert extent.solve(22, {"B": 3}) == ("T", 7)
    with pytest.raises(ValueError, match="no integer T"):
        extent.solve(23, {"B": 3})
    assert Extent.parse("T*T").solve(49, {}) is None
    assert Extent.parse("T").solve(7, VALUES) is None
