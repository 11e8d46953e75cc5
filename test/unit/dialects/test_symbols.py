"""Sym against arithmetic: every law is checked by evaluating at integers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opennpu.dialects.symbols import (
    Sym,
    dims_of,
    set_symbol_ranges,
    symbol_ranges,
    tensor_type,
)
from torch_mlir import ir

VALUES = {"T": 7, "B": 3, "P": 11}
monomials = st.lists(st.sampled_from(sorted(VALUES)), max_size=3).map(lambda m: tuple(sorted(m)))
syms = st.dictionaries(monomials, st.integers(-9, 9), max_size=4).map(Sym)


@given(syms, syms)
def test_arithmetic_agrees_with_integers(a, b):
    x, y = a.evaluate(VALUES), b.evaluate(VALUES)
    assert (a + b).evaluate(VALUES) == x + y
    assert (a - b).evaluate(VALUES) == x - y
    assert (a * b).evaluate(VALUES) == x * y


@given(syms)
def test_text_round_trip(a):
    assert Sym.of(str(a)) == a
    assert str(Sym.of(str(a))) == str(a)


@given(syms, syms.filter(lambda s: s.terms))
def test_exact_division_inverts_multiplication(a, b):
    assert (a * b).exact_div(b) == a


@given(syms, st.fixed_dictionaries({n: st.integers(0, 20) for n in VALUES}))
def test_bounds_hold(a, values):
    ranges = {name: (max(v - 2, 0), v + 3) for name, v in values.items()}
    lower, upper = a.bounds(ranges)
    assert lower <= a.evaluate(values) <= upper


def test_text_is_canonical():
    assert str(Sym.of("1 + T*2*B - T")) == "2*B*T - T + 1"
    assert str(Sym.of("T - T")) == "0"
    assert str(Sym.of("(T + 1)*(T - 1)")) == "T*T - 1"


def test_constant_equals_and_hashes_like_int():
    assert Sym.of("3") == 3 and hash(Sym.of("3")) == hash(3)
    assert Sym.of("T") != 3 and Sym.of("T") == Sym.of("T")


def test_unbounded_symbol():
    assert Sym.of("2*T + 1").bounds({"T": (1, None)}) == (3, None)
    assert Sym.of("8 - T").bounds({"T": (1, None)}) == (None, 7)


@pytest.mark.parametrize("text", ["T +", "T ^ 2", "f(T)", "1.5*T", "T//2"])
def test_not_a_polynomial(text):
    with pytest.raises(ValueError, match=r"polynomial|divisible"):
        Sym.of(text)


def test_division_with_a_rest():
    with pytest.raises(ValueError, match="not divisible"):
        Sym.of("T + 1").exact_div(2)


def test_types_carry_extents():
    with ir.Context(), ir.Location.unknown():
        bf16 = ir.BF16Type.get()
        type_ = tensor_type([Sym.of("T"), 576], bf16)
        assert str(type_) == 'tensor<?x576xbf16, ["T", "576"]>'
        assert dims_of(type_) == (Sym.of("T"), 576)
        assert str(tensor_type([Sym.of("4"), 8], bf16)) == "tensor<4x8xbf16>"
        for bad in (
            "tensor<?xf32>",
            'tensor<?xf32, ["3"]>',
            'tensor<4xf32, ["T"]>',
            "tensor<4xf32, 1 : i64>",
        ):
            with pytest.raises(ValueError, match="tensor<"):
                dims_of(ir.Type.parse(bad))


def test_module_ranges_round_trip():
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.create()
        assert symbol_ranges(module) == {}
        ranges = {"T": (1, 4096), "P": (1, None)}
        set_symbol_ranges(module, ranges)
        assert symbol_ranges(module) == ranges
