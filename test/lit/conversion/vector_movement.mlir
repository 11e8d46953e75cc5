// RUN: npu-opt %s --convert-npu-to-tile --cse --canonicalize --split-input-file | FileCheck %s

// Concat: one kernel, each source copied to its place in the rows of the result.
func.func @main(%x: tensor<8x16xbf16> {npu.input = "x"}, %y: tensor<8x48xbf16> {npu.input = "y"}) -> tensor<8x64xbf16> {
  %0 = "npu.concat"(%x, %y) {dim = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<8x16xbf16>, tensor<8x48xbf16>) -> tensor<8x64xbf16>
  return %0 : tensor<8x64xbf16>
}
// CHECK-LABEL: func.func @main
// CHECK:         %[[X:.*]] = "npu_tile.arg"() {index = 0
// CHECK:         %[[Y:.*]] = "npu_tile.arg"() {index = 1
// CHECK:         %[[OUT:.*]] = "npu_tile.arg"() {index = 2
// CHECK-COUNT-1: "npu_tile.kernel"
// CHECK:         "npu_tile.dma_load"({{.*}}, %c1_i64, %c128_i64,
// CHECK:         "npu_tile.dma_store"({{.*}}, %c4_i64, %c32_i64, {{.*}}%c128_i64) :
// CHECK:         "npu_tile.dma_load"({{.*}}, %c1_i64, %c384_i64,
// CHECK:         arith.addi %[[OUT]], %c32_i64
// CHECK:         "npu_tile.dma_store"({{.*}}, %c4_i64, %c96_i64, {{.*}}%c128_i64) :
// CHECK-NOT:     npu_tile.kernel

// -----

// Gather: rows of the table by an index list in HBM, whatever its length.
module attributes {npu.symbols = {T = [0, 4096]}} {
  func.func @main(%table: tensor<1000x576xbf16> {npu.param = "embed"}, %ids: tensor<?xi64, ["T"]> {npu.input = "ids"}) -> tensor<?x576xbf16, ["T", "576"]> {
    %0 = "npu.gather"(%table, %ids) : (tensor<1000x576xbf16>, tensor<?xi64, ["T"]>) -> tensor<?x576xbf16, ["T", "576"]>
    return %0 : tensor<?x576xbf16, ["T", "576"]>
  }
}
// CHECK-LABEL: func.func @main
// CHECK:         scf.for %[[FIRST:.*]] = %{{.*}} to %[[HI:.*]] step
// CHECK:           %[[N:.*]] = arith.minsi
// CHECK:           "npu_tile.dma_gather"(%[[ROWS:[0-9]+]], %c0_i64, %{{.*}}, %{{.*}}, %[[N]], %c1000_i64, %c1_i64, %c1152_i64, %c0_i64, %c1_i64, %c1152_i64, %c0_i64, %c1152_i64, %c0_i64) {index_dtype = "i64"}
// CHECK:           "npu_tile.dma_store"({{.*}}%[[ROWS]],

// -----

// Take: a row and its indices meet in scratchpad.
func.func @main(%x: tensor<4x100xf32> {npu.input = "x"}, %i: tensor<4x5xi64> {npu.input = "i"}) -> tensor<4x5xf32> {
  %0 = "npu.take"(%x, %i) : (tensor<4x100xf32>, tensor<4x5xi64>) -> tensor<4x5xf32>
  return %0 : tensor<4x5xf32>
}
// CHECK-LABEL: func.func @main
// CHECK:         "npu_tile.dma_load"(%[[X:[0-9]+]],
// CHECK:         "npu_tile.dma_load"(%[[I:[0-9]+]],
// CHECK:         "npu_tile.v_gather"(%[[Y:[0-9]+]], %c0_i64, %[[X]], %c0_i64, %[[I]], {{.*}}, %c5_i64, %c100_i64) {a_strides = array<i64: 0, 400, 4>
// CHECK:         "npu_tile.dma_store"({{.*}}%[[Y]],
