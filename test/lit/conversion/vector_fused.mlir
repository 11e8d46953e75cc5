// RUN: npu-opt %s --convert-npu-to-tile --cse --canonicalize --split-input-file | FileCheck %s

// A fused group is one loop nest: [T, 3, 8] times [T, 1, 8] reads the second with stride 0,
// and no value inside goes to HBM.
module attributes {npu.symbols = {T = [0, 4096]}} {
  func.func @main(%x: tensor<?x3x8xbf16, ["T", "3", "8"]> {npu.input = "x"}, %c: tensor<?x1x8xbf16, ["T", "1", "8"]> {npu.input = "c"}) -> tensor<?x3x8xbf16, ["T", "3", "8"]> {
    %0 = "npu.fused"() ({
      %1 = "npu.binary"(%x, %c) {op = "mul"} : (tensor<?x3x8xbf16, ["T", "3", "8"]>, tensor<?x1x8xbf16, ["T", "1", "8"]>) -> tensor<?x3x8xbf16, ["T", "3", "8"]>
      %2 = "npu.unary"(%1) {op = "tanh"} : (tensor<?x3x8xbf16, ["T", "3", "8"]>) -> tensor<?x3x8xbf16, ["T", "3", "8"]>
      "npu.yield"(%2) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?x3x8xbf16, ["T", "3", "8"]>) -> ()
    }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<?x3x8xbf16, ["T", "3", "8"]>
    return %0 : tensor<?x3x8xbf16, ["T", "3", "8"]>
  }
}
// CHECK-LABEL: func.func @main
// CHECK-COUNT-1: "npu_tile.kernel"
// CHECK:         scf.for
// CHECK:           "npu_tile.dma_load"(%[[X:[0-9]+]],
// CHECK:           "npu_tile.dma_load"(%[[C:[0-9]+]],
// CHECK:           "npu_tile.v_binary"(%[[X]], %c0_i64, %[[X]], %c0_i64, %[[C]],{{.*}}a_strides = array<i64: 48, 16, 2>, b_strides = array<i64: 16, 0, 2>
// CHECK:           "npu_tile.v_unary"(%[[X]],{{.*}}op = "tanh"
// CHECK:           "npu_tile.dma_store"
// CHECK-NOT:     "npu_tile.

// -----

// Rows and columns that every operand steps as one are one axis, of T·24 elements, shared
// out in multiples of 64 elements.
module attributes {npu.symbols = {T = [0, 4096]}} {
  func.func @main(%x: tensor<?x3x8xbf16, ["T", "3", "8"]> {npu.input = "x"}) -> tensor<?x3x8xbf16, ["T", "3", "8"]> {
    %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x3x8xbf16, ["T", "3", "8"]>) -> tensor<?x3x8xbf16, ["T", "3", "8"]>
    return %0 : tensor<?x3x8xbf16, ["T", "3", "8"]>
  }
}
// CHECK-LABEL: func.func @main
// CHECK:         %[[N:.*]] = arith.muli %{{.*}}, %c24_i64
// CHECK:         %[[HALF:.*]] = arith.ceildivsi %[[N]], %c2_i64
// CHECK:         %[[LINES:.*]] = arith.ceildivsi %[[HALF]], %c64_i64
// CHECK:         arith.muli %[[LINES]], %c64_i64
// CHECK:         "npu_tile.v_unary"({{.*}}, %c1_i64, %c1_i64, %{{.*}}) {a_strides = array<i64: 0, 0, 2>
