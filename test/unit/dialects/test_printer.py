# ruff: noqa: E501  lines of MLIR
"""Readable dumps of each dialect."""

from opennpu.dialects import load_all
from opennpu.dialects.printer import pretty, show_attribute, show_type
from torch_mlir import ir

SOURCE = """
func.func @main(%x: tensor<?x8xbf16, ["T", "8"]> {npu.input = "x"}, %w: tensor<4x8xbf16> {npu.param = "fc.weight"}) -> tensor<?x4xf32, ["T", "4"]> {
  %0 = "npu.matmul"(%x, %w) {transpose_w = true, epilogue = ["silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<?x8xbf16, ["T", "8"]>, tensor<4x8xbf16>) -> tensor<?x4xf32, ["T", "4"]> loc("mlp.fc"("m.py":3:0))
  %1 = "npu.repeat"(%0) ({
  ^bb0(%layer: i64, %c: tensor<?x4xf32, ["T", "4"]>):
    "npu.yield"(%c) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x4xf32, ["T", "4"]>) -> ()
  }) {count = 2 : i64, params = [], operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x4xf32, ["T", "4"]>) -> tensor<?x4xf32, ["T", "4"]>
  return %1 : tensor<?x4xf32, ["T", "4"]>
}
"""
EXPECTED = """\
builtin.module {
  func @main(%x: bf16[T, 8], %fc.weight: bf16[4, 8]) -> f32[T, 4] {
    %2 = npu.matmul %x, %fc.weight {epilogue = [silu], transpose_w} : f32[T, 4]  // mlp.fc
    %3 = npu.repeat %2 {count = 2, params = []} : f32[T, 4] {
    ^(%arg : i64, %arg0 : f32[T, 4]):
      npu.yield %arg0
    }
    func.return %3
  }
}
"""


def test_npu():
    with load_all(ir.Context()), ir.Location.unknown():
        assert pretty(ir.Module.parse(SOURCE).operation) == EXPECTED


def test_attributes_and_types():
    with load_all(ir.Context()), ir.Location.unknown():
        shown = {
            '[1, 2.5 : f32, "a"]': "[1, 2.5, a]",
            "array<i64: 8, 3, 4, 2, 1>": "8 + r3*4 + r2",
            "array<i64: 0, 3, 1>": "r3",
            "array<i64: 0>": "0",
            "{a = true}": "{a = True}",
        }
        for text, expected in shown.items():
            assert show_attribute(ir.Attribute.parse(text), affine=True) == expected
        assert show_attribute(ir.Attribute.parse("array<i64: 0, 512, 4>")) == "[0, 512, 4]"
        assert show_type(ir.Type.parse("tensor<?xf32>")) == "tensor<?xf32>"
        assert show_type(ir.Type.parse("memref<4x8xf32>")) == "memref<4x8xf32>"
