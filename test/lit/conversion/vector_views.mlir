// RUN: npu-opt %s --convert-npu-to-tile --cse --canonicalize --split-input-file | FileCheck %s

// Slice, reshape and transpose of an operand cost nothing: one kernel, which reads with strides.
module attributes {npu.symbols = {T = [0, 512]}} {
  func.func @main(%x: tensor<?x24xbf16, ["T", "24"]> {npu.input = "x"}) -> tensor<3x?x4xbf16, ["3", "T", "4"]> {
    %0 = "npu.slice"(%x) {dim = 1 : i64, offset = 12 : i64, stride = 1 : i64} : (tensor<?x24xbf16, ["T", "24"]>) -> tensor<?x12xbf16, ["T", "12"]>
    %1 = "npu.reshape"(%0) : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x3x4xbf16, ["T", "3", "4"]>
    %2 = "npu.transpose"(%1) {perm = [1, 0, 2]} : (tensor<?x3x4xbf16, ["T", "3", "4"]>) -> tensor<3x?x4xbf16, ["3", "T", "4"]>
    %3 = "npu.unary"(%2) {op = "neg"} : (tensor<3x?x4xbf16, ["3", "T", "4"]>) -> tensor<3x?x4xbf16, ["3", "T", "4"]>
    return %3 : tensor<3x?x4xbf16, ["3", "T", "4"]>
  }
}
// CHECK-LABEL: func.func @main
// CHECK:         %[[X:.*]] = "npu_tile.arg"() {index = 0
// CHECK:         "npu_tile.kernel"
// CHECK:           arith.addi %[[X]], %c24_i64
// CHECK-COUNT-1:   "npu_tile.dma_load"
// CHECK-NEXT:      "npu_tile.v_unary"
// CHECK-NOT:     npu_tile.kernel

// -----

// A reshape that strides cannot tell is a copy, without a vector instruction.
func.func @main(%x: tensor<4x6x8xbf16> {npu.input = "x"}) -> tensor<24x8xbf16> {
  %0 = "npu.transpose"(%x) {perm = [1, 0, 2]} : (tensor<4x6x8xbf16>) -> tensor<6x4x8xbf16>
  %1 = "npu.reshape"(%0) : (tensor<6x4x8xbf16>) -> tensor<24x8xbf16>
  return %1 : tensor<24x8xbf16>
}
// CHECK-LABEL: func.func @main
// CHECK-COUNT-1: "npu_tile.kernel"
// CHECK:         "npu_tile.dma_load"(%[[X:[0-9]+]],
// CHECK-NOT:     npu_tile.v_
// CHECK:         "npu_tile.dma_store"({{.*}}%[[X]],
// CHECK-NOT:     npu_tile.kernel

// -----

// A matrix transposed in scratchpad: long runs in, long runs out.
func.func @main(%x: tensor<64x64xbf16> {npu.input = "x"}) -> tensor<64x64xbf16> {
  %0 = "npu.transpose"(%x) {perm = [1, 0]} : (tensor<64x64xbf16>) -> tensor<64x64xbf16>
  return %0 : tensor<64x64xbf16>
}
// CHECK-LABEL: func.func @main
// CHECK:         "npu_tile.dma_load"(%[[X:[0-9]+]], %c0_i64, %{{.*}}, %c1_i64, %c1_i64, %c64_i64, %c64_i64, %c0_i64, %c0_i64, %c128_i64, %c0_i64, %c0_i64, %c64_i64, %c1_i64, %c1_i64)
// CHECK:         "npu_tile.v_unary"(%[[Y:[0-9]+]], %c0_i64, %[[X]], {{.*}} {a_strides = array<i64: 0, 2, 64>, dst_strides = array<i64: 0, 128, 2>, op = "copy"}
// CHECK:         "npu_tile.dma_store"(%{{.*}}, %[[Y]], %c0_i64, %c1_i64, %c1_i64, %c1_i64, %c4096_i64,
