// RUN: npu-opt %s --convert-npu-to-tile | FileCheck %s

// One loop around the kernels of a layer; a table says where each layer's weights lie. The
// new value of %x goes to its slot by a copy: the last product still reads the old one.

// CHECK: \22layout\22: \22table\22, \22dtype\22: \22i64\22, \22entries\22: [0, 1966080, 3932160]
// CHECK-LABEL: func.func @main()
// CHECK: source = "npu.repeat"
// CHECK: scf.for %[[LAYER:.*]] = %{{.*}} to %c3_i64
// CHECK-NEXT: "npu_tile.kernel"
// CHECK: arith.muli %[[LAYER]], %c8_i64
// CHECK: "npu_tile.load_scalar"
// CHECK: source = "npu.matmul"
// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.load_scalar"
// CHECK: source = "npu.matmul"
// CHECK: source = "npu.yield"
// CHECK-NEXT: {{^ *[}]$}}
// CHECK: source = "func.return"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x576xbf16, ["T", "576"]> {npu.input = "x"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.repeat"(%x) ({
    ^bb0(%layer: i64, %h: tensor<?x576xbf16, ["T", "576"]>, %up: tensor<1536x576xbf16>, %down: tensor<576x1536xbf16>):
      %1 = "npu.matmul"(%h, %up) {epilogue = ["silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x576xbf16, ["T", "576"]>, tensor<1536x576xbf16>) -> tensor<?x1536xbf16, ["T", "1536"]>
      %2 = "npu.matmul"(%1, %down, %h) {epilogue = ["residual"], operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>, transpose_w = true} : (tensor<?x1536xbf16, ["T", "1536"]>, tensor<576x1536xbf16>, tensor<?x576xbf16, ["T", "576"]>) -> tensor<?x576xbf16, ["T", "576"]>
      "npu.yield"(%2) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x576xbf16, ["T", "576"]>) -> ()
    }) {count = 3 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, params = [["u0", "u1", "u2"], ["d0", "d1", "d2"]], resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x576xbf16, ["T", "576"]>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}
