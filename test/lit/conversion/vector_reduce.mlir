// RUN: npu-opt %s --convert-npu-to-tile --cse --canonicalize | FileCheck %s

// Over the first of two dimensions: the tile comes as it lies in HBM, in runs of many
// elements, and the reduction steps through it by the length of a row.
func.func @main(%x: tensor<32x64xf32> {npu.input = "x"}) -> tensor<64xf32> {
  %0 = "npu.reduce"(%x) {op = "sum", dim = 0 : i64, keepdim = false} : (tensor<32x64xf32>) -> tensor<64xf32>
  return %0 : tensor<64xf32>
}
// CHECK-LABEL: func.func @main
// CHECK:         scf.for
// CHECK:           "npu_tile.dma_load"(%[[X:[0-9]+]], %c0_i64, %{{.*}}, %c1_i64, %c1_i64, %c32_i64, %c128_i64, %c0_i64, %c0_i64, %c256_i64, %c0_i64, %c0_i64, %c128_i64, %c1_i64, %c1_i64)
// CHECK:           "npu_tile.v_reduce"(%[[Y:[0-9]+]], %c0_i64, %[[X]], %c0_i64, %c1_i64, %c32_i64, %c32_i64) {a_strides = array<i64: 0, 4, 128>, dst_strides = array<i64: 0, 4, 0>, op = "sum"}
// CHECK:           "npu_tile.dma_store"(%{{.*}}, %[[Y]], %c0_i64, %c1_i64, %c1_i64, %c1_i64, %c128_i64,
