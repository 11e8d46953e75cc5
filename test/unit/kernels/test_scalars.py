"""Scalar expressions: what is known folds, the rest becomes one `arith` op."""

from hypothesis import given
from hypothesis import strategies as st
from opennpu.compiler.kernels.scalars import I64, ceildiv, maximum, minimum, ssa
from torch_mlir import ir

naturals = st.integers(0, 10**9)


@given(naturals, st.integers(1, 10**6))
def test_known_operands_fold(a, b):
    assert ceildiv(a, b) * b - a in range(b)
    assert minimum(a, b) == min(a, b) and maximum(a, b) == max(a, b)


def test_unknown_operands_become_ops():
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.create()
        with ir.InsertionPoint(module.body):
            x = I64(ssa(7))
            assert x + 0 is x and 0 + x is x and x * 1 is x and x // 1 is x and x - 0 is x
            assert x * 0 == 0 and x % 1 == 0 and ceildiv(x, 1) is x
            made = [2 * x, 3 - x, x // 4, x % 4, ceildiv(x, 4), minimum(x, 5), maximum(5, x)]
            names = [index.value.owner.name for index in made]
        assert names == [
            f"arith.{op}" for op in ("muli", "subi", "floordivsi", "remsi", "ceildivsi", "minsi", "maxsi")
        ]
        assert module.operation.verify()
