"""Constants fold to what the instruction set defines, also where numpy or Python would refuse them."""

import pytest
from opennpu.compiler.pass_manager import run_pipeline
from opennpu.compiler.rewriting import attr, definition
from opennpu.dialects import load_all
from torch_mlir import ir


def folded(element, body):
    """The value of %y after npu-canonicalize: a number, or None where it is still computed."""
    text = f"func.func @main() -> tensor<2x{element}> {{ {body} return %y : tensor<2x{element}> }}"
    with load_all(ir.Context()), ir.Location.unknown():
        module = ir.Module.parse(text)
        run_pipeline(module, "npu-canonicalize")
        function = module.body.operations[0].operation
        result = list(function.regions[0].blocks[0].operations)[-1].operands[0]
        constant = definition(result, "npu.constant")
        return None if constant is None else attr(constant, "value")


def constant(name, value, element):
    return f'%{name} = "npu.constant"() {{value = {value} : {element}}} : () -> tensor<2x{element}>\n'


@pytest.mark.parametrize(
    "value, source, target, expected",
    [
        (300, "i32", "i8", 44),  # 300 - 256: the low bits
        (-129, "i64", "i8", 127),
        (2**32 + 5, "i64", "i32", 5),
        (256, "i32", "i1", True),  # ≠ 0, not a low bit
        ("1.0e10", "f32", "i32", 2**31 - 1),
        ("-1.0e10", "f32", "i32", -(2**31)),
        ("1.0e30", "f32", "i64", 2**63 - 1),
        ("-300.5", "f32", "i8", -128),
        ("-2.75", "f32", "i32", -2),
        ("0x7F800000", "f32", "i32", 2**31 - 1),  # inf
        ("0x7FC00000", "f32", "i32", 0),  # NaN
        ("0x7FC00000", "f32", "i1", True),
        (1, "i1", "i32", 1),
        (7, "i64", "bf16", 7.0),
    ],
)
def test_casts(value, source, target, expected):
    cast = f'%y = "npu.cast"(%x) : (tensor<2x{source}>) -> tensor<2x{target}>\n'
    literal = constant("x", value, source)
    assert folded(target, literal + cast) == expected


@pytest.mark.parametrize("exponent, expected", [(3, 8), (-2, None)])
def test_whole_powers(exponent, expected):
    """A negative exponent is the chip's to compute."""
    power = '%y = "npu.binary"(%a, %b) {op = "pow"} : (tensor<2xi64>, tensor<2xi64>) -> tensor<2xi64>\n'
    assert folded("i64", constant("a", 2, "i64") + constant("b", exponent, "i64") + power) == expected
