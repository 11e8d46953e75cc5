"""The algebra of views against numpy's own views."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from opennpu.compiler.kernels import views
from opennpu.dialects.symbols import Sym

T, B = Sym.of("T"), Sym.of("B")
extents = st.lists(st.integers(0, 5), min_size=0, max_size=4)


def realise(view, values, symbols=None):
    """The elements of the flat array `values` that the view shows."""

    def number(x):
        return x.evaluate(symbols) if isinstance(x, Sym) else x

    shape = [number(x) for x in view.shape]
    strides = [number(x) * values.itemsize for x in view.strides]
    return as_strided(values[number(view.offset) :], shape, strides)


@st.composite
def strided(draw):
    """A random numpy view made by transposing, slicing and broadcasting, and ours beside it."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    values = np.arange(np.prod(shape) + 1)
    theirs, ours = values[:-1].reshape(shape), views.contiguous(shape)
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["transpose", "slice", "unsqueeze", "broadcast"])):
            case "transpose":
                perm = draw(st.permutations(range(theirs.ndim)))
                theirs, ours = theirs.transpose(perm), views.transpose(ours, perm)
            case "slice":
                d = draw(st.integers(0, theirs.ndim - 1))
                offset = draw(st.integers(0, theirs.shape[d] - 1))
                step = draw(st.integers(1, 3))
                theirs = np.moveaxis(np.moveaxis(theirs, d, 0)[offset::step], 0, d)
                ours = views.slice_dim(ours, d, offset, theirs.shape[d], step)
            case "unsqueeze":
                d = draw(st.integers(0, theirs.ndim))
                theirs, ours = np.expand_dims(theirs, d), views.unsqueeze(ours, d)
            case "broadcast":
                shape = [3 if n == 1 else n for n in theirs.shape]
                theirs, ours = np.broadcast_to(theirs, shape), views.broadcast(ours, shape)
    return values, theirs, ours


@given(strided())
@settings(max_examples=150)
def test_views_show_what_numpy_shows(case):
    values, theirs, ours = case
    np.testing.assert_array_equal(realise(ours, values), theirs)


@given(strided(), st.data())
@settings(max_examples=200)
def test_reshape_is_a_view_exactly_when_numpy_needs_no_copy(case, data):
    values, theirs, ours = case
    target, left = [], theirs.size
    while left > 1:
        n = data.draw(st.sampled_from([k for k in range(2, left + 1) if left % k == 0]))
        target.append(n)
        left //= n
    if data.draw(st.booleans()):
        target.insert(data.draw(st.integers(0, len(target))), 1)
    reshaped = views.reshape(ours, target)
    if reshaped is not None:
        np.testing.assert_array_equal(realise(reshaped, values), theirs.reshape(target))
    else:
        assert not np.shares_memory(theirs.reshape(target), values)


@given(extents)
def test_contiguous_views_reshape_freely(shape):
    view = views.contiguous(shape)
    assert views.is_contiguous(view)
    flat = views.reshape(view, [int(np.prod(shape))])
    assert flat is not None
    assert views.is_contiguous(flat)


@given(strided())
@settings(max_examples=100)
def test_contiguity_agrees_with_numpy(case):
    _, theirs, ours = case
    assert views.is_contiguous(ours) == theirs.flags.c_contiguous


def test_symbolic_reshape_splits_and_merges():
    view = views.contiguous([T, 12])
    split = views.reshape(view, [T, 3, 4])
    assert split.strides == (12, 4, 1)
    merged = views.reshape(split, [T * 12])
    assert (merged.shape, merged.strides) == ((T * 12,), (1,))
    assert views.reshape(merged, [T, 12]) == view


def test_symbolic_reshape_after_transpose():
    heads_first = views.transpose(views.contiguous([T, 3, 4]), [1, 0, 2])
    assert heads_first.shape == (3, T, 4)
    assert views.reshape(heads_first, [3 * T, 4]) is None
    assert views.reshape(heads_first, [3, T, 2, 2]).strides == (4, 12, 2, 1)


def test_two_symbols():
    view = views.contiguous([B, T, 8])
    assert view.strides == (T * 8, 8, 1)
    assert views.reshape(view, [B * T, 8]).strides == (8, 1)
    sliced = views.slice_dim(view, 1, 1, T - 1)
    assert views.reshape(sliced, [B * (T - 1), 8]) is None
    values = np.arange(2 * 5 * 8)
    np.testing.assert_array_equal(realise(sliced, values, {"T": 5, "B": 2}), values.reshape(2, 5, 8)[:, 1:])


def test_collapse_needs_every_view_to_agree():
    shape = (T, 4, 8)
    whole, repeated = (32, 8, 1), (8, 0, 1)
    assert views.collapse(shape, [whole])[0] == (32 * T,)
    merged, (a, b) = views.collapse(shape, [whole, repeated])
    assert merged == shape
    assert (a, b) == (whole, repeated)
    assert views.collapse((1, T, 1, 8), [(9, 8, 5, 1)], keep_last=True) == ((T, 8), [(8, 1)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: views.reshape(v, [T, 5]), "different numbers"),
        (lambda v: views.broadcast(v, [T, 5]), "does not broadcast"),
        (lambda v: views.transpose(v, [0, 0]), "no permutation"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(views.contiguous([T, 4]))
