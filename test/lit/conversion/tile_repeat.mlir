// RUN: split-file %s %t
// RUN: npu-opt %t/copy.mlir --convert-npu-to-tile | FileCheck %t/copy.mlir
// RUN: npu-opt %t/in_place.mlir --convert-npu-to-tile | FileCheck %t/in_place.mlir

// One loop around the kernels of a layer. Weights of its own lie so far apart in each layer (%up); where
// layers share some, a table says where they lie (%down). The new value of %x goes to its slot by a copy: the
// last product still reads the old one.

//--- copy.mlir
// CHECK: \22layout\22: \22table\22, \22dtype\22: \22i64\22, \22entries\22: [5308416, 7077888, 5308416]
// CHECK-LABEL: func.func @main()
// CHECK: source = "npu.repeat"
// CHECK: scf.for %[[LAYER:.*]] = %{{.*}} to %c3_i64
// CHECK-NEXT: "npu_tile.kernel"
// CHECK: arith.muli %[[LAYER]], %c1769472_i64
// CHECK-NOT: "npu_tile.load_scalar"
// CHECK: source = "npu.matmul"
// CHECK: "npu_tile.kernel"
// CHECK: arith.muli %[[LAYER]], %c8_i64
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
    }) {count = 3 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, params = [["u0", "u1", "u2"], ["d0", "d1", "d0"]], resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x576xbf16, ["T", "576"]>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}

// The old value is dead when the last product writes: it writes the slot at once, 512 bytes
// a token, beside the slot of the value between the products.

//--- in_place.mlir
// CHECK: \22workspace\22, \22bytes\22: \221024*T\22
// CHECK: scf.for
// CHECK-COUNT-2: source = "npu.matmul"
// CHECK-NOT: source = "npu.yield"
module attributes {npu.symbols = {T = [1, 4096]}} {
  func.func @main(%x: tensor<?x256xbf16, ["T", "256"]> {npu.input = "x"}) -> tensor<?x256xbf16, ["T", "256"]> {
    %0 = "npu.repeat"(%x) ({
    ^bb0(%layer: i64, %h: tensor<?x256xbf16, ["T", "256"]>, %w: tensor<256x256xbf16>):
      %1 = "npu.matmul"(%h, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
      %2 = "npu.matmul"(%1, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x256xbf16, ["T", "256"]>, tensor<256x256xbf16>) -> tensor<?x256xbf16, ["T", "256"]>
      "npu.yield"(%2) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x256xbf16, ["T", "256"]>) -> ()
    }) {count = 3 : i64, operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, params = [["w0", "w1", "w2"]], resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x256xbf16, ["T", "256"]>) -> tensor<?x256xbf16, ["T", "256"]>
    return %0 : tensor<?x256xbf16, ["T", "256"]>
  }
}
