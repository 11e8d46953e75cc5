"""npu-capture: what it names, what it cannot, and layers of more than one stack."""

import pytest
from opennpu.compiler.passes import capture
from opennpu.compiler.rewriting import functions
from opennpu.dialects import load_all
from opennpu.dialects.diagnostics import CompileError
from torch_mlir import ir

UNARY = '%{to} = "npu.unary"(%{of}) {{op = "{op}"}} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc({at})'


def module(*ops: str, result: str) -> ir.Module:
    text = "\n  ".join(ops)
    with load_all(ir.Context()):
        return ir.Module.parse(
            'func.func @main(%x: tensor<4x8xf32> {npu.input = "x"})'
            ' -> (tensor<4x8xf32> {npu.output = "y"}) {\n'
            f"  {text}\n  return %{result} : tensor<4x8xf32>\n}}"
        )


def unary(to: str, of: str, *paths: str) -> str:
    place = ", ".join(f'"{path}"' for path in paths)
    return UNARY.format(
        to=to, of=of, op="exp", at=f"fused[{place}]" if len(paths) > 1 else place or "unknown"
    )


def segments(kind: str, given: int, slots: int) -> str:
    sizes = ", ".join(["1"] * given + ["0"] * (slots - given))
    return f"{kind}SegmentSizes = array<i32: {sizes}>"


def run(made: ir.Module, **options) -> capture.Captures:
    with made.context, ir.Location.unknown():
        return capture.run(made, **options)


def test_results_without_a_name_are_told():
    made = module(
        unary("a", "x", "layers.0.act"),
        unary("b", "a", "layers.0.act"),
        unary("c", "b"),
        unary("d", "c", "layers.1"),
        result="d",
    )
    captures = run(made, select="ops")
    assert [c.name for c in captures.values] == ["layers.0.act#0", "layers.1#0"]
    assert [(s.name, s.reason) for s in captures.skipped] == [
        ("npu.unary of layers.0.act, result 0", "it is within a module: a later op makes what that returns"),
        ("npu.unary of no module, result 0", "its op is of no module"),
    ]


def test_a_layer_that_hands_on_what_has_no_name_is_not_replaced():
    """A value of layer 0 goes on that a later op of its module is behind of."""
    made = module(
        unary("a", "x", "layers.0.act"),
        unary("b", "a", "layers.0.act"),
        '%c = "npu.binary"(%a, %b) {op = "add"} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>'
        ' loc("layers.1.add")',
        result="c",
    )
    assert [(s.layer, s.name) for s in run(made).skipped] == [("0", "npu.unary of layers.0.act, result 0")]
    with pytest.raises(CompileError, match="layer 0 cannot be replaced"):
        run(made, replace="0")


def test_layers_of_two_stacks_are_called_by_their_paths():
    made = module(
        unary("a", "x", "visual.blocks.0.act"),
        unary("b", "a", "visual.blocks.1.act"),
        unary("c", "b", "model.layers.0.act"),
        unary("d", "c", "model.layers.1.act"),
        unary("e", "d", "model.norm"),
        result="e",
    )
    names = ["visual.blocks.0", "visual.blocks.1", "model.layers.0", "model.layers.1"]
    assert [c.layer for c in run(made).values] == names
    made = module(unary("a", "x", "0"), unary("b", "a", "1"), unary("c", "b", "head"), result="c")
    assert [(c.layer, c.output, c.row) for c in run(made).values] == [("0", "*#0", 0), ("1", "*#0", 1)]


def test_a_result_of_another_type_has_an_output_of_its_own():
    wide = "tensor<4x16xf32>"
    made = module(
        unary("a", "x", "layers.0.act"),
        f'%w = "npu.concat"(%a, %a) {{dim = 1 : i64, {segments("operand", 2, 16)}}}'
        f' : (tensor<4x8xf32>, tensor<4x8xf32>) -> {wide} loc("layers.1.act")',
        f'%s = "npu.slice"(%w) {{dim = 1 : i64, offset = 0 : i64, stride = 1 : i64}} : ({wide})'
        ' -> tensor<4x8xf32> loc("layers.2.act")',
        unary("y", "s", "head"),
        result="y",
    )
    outputs = [(c.name, c.output, c.row) for c in run(made).values]
    assert outputs == [
        ("layers.0.act#0", "layers.*.act#0", 0),
        ("layers.1.act#0", "layers.1.act#0", 0),
        ("layers.2.act#0", "layers.*.act#0", 2),
    ]
    assert next(functions(made))


def test_results_of_a_fused_op_are_named_by_what_makes_them():
    made = module(
        unary("a", "x", "layers.0.norm"),
        '%f:2 = "npu.fused"() ({\n'
        '    %s = "npu.unary"(%a) {op = "exp"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.1.add")\n'
        '    %n = "npu.unary"(%s) {op = "tanh"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.1.norm")\n'
        '    "npu.yield"(%s, %n) {' + segments("operand", 2, 8) + "}"
        " : (tensor<4x8xf32>, tensor<4x8xf32>) -> ()\n"
        "  }) {" + segments("result", 2, 8) + "} : () -> (tensor<4x8xf32>, tensor<4x8xf32>)"
        ' loc(fused["layers.1.add", "layers.1.norm"])',
        '%y = "npu.binary"(%f#0, %f#1) {op = "add"} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>'
        ' loc("head")',
        result="y",
    )
    assert [c.name for c in run(made).values] == ["layers.0.norm#0", "layers.1.add#0", "layers.1.norm#0"]
