// RUN: npu-opt %s > %t && npu-opt %t | diff - %t && FileCheck %s < %t
// Every operation of the dialect parses, verifies, and prints as it was.
// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.alloc"
// CHECK: "npu_tile.alloc"
// CHECK: "npu_tile.alloc"
// CHECK: "npu_tile.alloc"
// CHECK: "npu_tile.core"
// CHECK: "npu_tile.cores"
// CHECK: "npu_tile.arg"
// CHECK: "npu_tile.load_scalar"
// CHECK: "npu_tile.set_flag"
// CHECK: "npu_tile.wait_flag"
// CHECK: "npu_tile.slot"
// CHECK: "npu_tile.dma_load"
// CHECK: "npu_tile.dma_store"
// CHECK: "npu_tile.dma_gather"
// CHECK: "npu_tile.dma_scatter"
// CHECK: "npu_tile.mx_load"
// CHECK: "npu_tile.mx_mul"
// CHECK: "npu_tile.v_fill"
// CHECK: "npu_tile.v_iota"
// CHECK: "npu_tile.v_unary"
// CHECK: "npu_tile.v_binary"
// CHECK: "npu_tile.v_select"
// CHECK: "npu_tile.v_reduce"
// CHECK: "npu_tile.v_softmax_step"
// CHECK: "npu_tile.v_transpose"
// CHECK: "npu_tile.v_gather"

module {
  func.func @main() {
    %c1_i64 = arith.constant 1 : i64
    "npu_tile.kernel"() ({
      %0 = "npu_tile.alloc"() : () -> memref<8x16xf32, "spm">
      %1 = "npu_tile.alloc"() : () -> memref<8x16xbf16, "spm">
      %2 = "npu_tile.alloc"() : () -> memref<8x16xi64, "spm">
      %3 = "npu_tile.alloc"() : () -> memref<8x16xf32, "acc">
      %4 = "npu_tile.core"() : () -> i64
      %5 = "npu_tile.cores"() : () -> i64
      %6 = "npu_tile.arg"() {index = 0 : i64} : () -> i64
      %7 = "npu_tile.load_scalar"(%6) {dtype = "i32"} : (i64) -> i64
      "npu_tile.set_flag"(%c1_i64) {queue = "load"} : (i64) -> ()
      "npu_tile.wait_flag"(%c1_i64) {queue = "matrix"} : (i64) -> ()
      scf.for %arg0 = %c1_i64 to %c1_i64 step %c1_i64  : i64 {
        %8 = "npu_tile.slot"(%arg0) {loop = 0 : i64, slots = 2 : i64} : (i64) -> i64
      }
      %c0_i64 = arith.constant 0 : i64
      "npu_tile.dma_load"(%0, %c0_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64) : (memref<8x16xf32, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      %c0_i64_0 = arith.constant 0 : i64
      "npu_tile.dma_store"(%c1_i64, %0, %c0_i64_0, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64) : (i64, memref<8x16xf32, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      %c0_i64_1 = arith.constant 0 : i64
      "npu_tile.dma_gather"(%0, %c0_i64_1, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64) {index_dtype = "i64"} : (memref<8x16xf32, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      %c0_i64_2 = arith.constant 0 : i64
      "npu_tile.dma_scatter"(%c1_i64, %0, %c0_i64_2, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64) {index_dtype = "i64"} : (i64, memref<8x16xf32, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      %c0_i64_3 = arith.constant 0 : i64
      "npu_tile.mx_load"(%0, %c0_i64_3, %c1_i64, %c1_i64, %c1_i64) {dtype = "f32", layout = "packed"} : (memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_4 = arith.constant 0 : i64
      %c0_i64_5 = arith.constant 0 : i64
      "npu_tile.mx_mul"(%3, %c0_i64_4, %0, %c0_i64_5, %c1_i64, %c1_i64) {dst_stride = 4 : i64, src_stride = 4 : i64} : (memref<8x16xf32, "acc">, i64, memref<8x16xf32, "spm">, i64, i64, i64) -> ()
      %c0_i64_6 = arith.constant 0 : i64
      "npu_tile.v_fill"(%0, %c0_i64_6, %c1_i64, %c1_i64, %c1_i64) {dst_strides = array<i64: 64, 64, 4>, value = 5.000000e-01 : f32} : (memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_7 = arith.constant 0 : i64
      "npu_tile.v_iota"(%0, %c0_i64_7, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64, %c1_i64) {dst_strides = array<i64: 64, 64, 4>} : (memref<8x16xf32, "spm">, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      %c0_i64_8 = arith.constant 0 : i64
      %c0_i64_9 = arith.constant 0 : i64
      "npu_tile.v_unary"(%0, %c0_i64_8, %0, %c0_i64_9, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>, op = "copy"} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_10 = arith.constant 0 : i64
      %c0_i64_11 = arith.constant 0 : i64
      %c0_i64_12 = arith.constant 0 : i64
      "npu_tile.v_binary"(%0, %c0_i64_10, %0, %c0_i64_11, %0, %c0_i64_12, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, b_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>, op = "add"} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_13 = arith.constant 0 : i64
      %c0_i64_14 = arith.constant 0 : i64
      %c0_i64_15 = arith.constant 0 : i64
      %c0_i64_16 = arith.constant 0 : i64
      "npu_tile.v_select"(%0, %c0_i64_13, %0, %c0_i64_14, %0, %c0_i64_15, %0, %c0_i64_16, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, b_strides = array<i64: 64, 64, 4>, cond_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_17 = arith.constant 0 : i64
      %c0_i64_18 = arith.constant 0 : i64
      "npu_tile.v_reduce"(%0, %c0_i64_17, %0, %c0_i64_18, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>, op = "sum"} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_19 = arith.constant 0 : i64
      %c0_i64_20 = arith.constant 0 : i64
      %c0_i64_21 = arith.constant 0 : i64
      %c0_i64_22 = arith.constant 0 : i64
      %c0_i64_23 = arith.constant 0 : i64
      "npu_tile.v_softmax_step"(%0, %c0_i64_19, %0, %c0_i64_20, %0, %c0_i64_21, %0, %c0_i64_22, %0, %c0_i64_23, %c1_i64, %c1_i64, %c1_i64, %c1_i64) {cap = 5.000000e-01 : f32, causal = 4 : i64, group = 4 : i64, p_strides = array<i64: 64, 64, 4>, s_strides = array<i64: 64, 64, 4>, scale = 5.000000e-01 : f32, window = 4 : i64} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64, i64) -> ()
      %c0_i64_24 = arith.constant 0 : i64
      %c0_i64_25 = arith.constant 0 : i64
      "npu_tile.v_transpose"(%0, %c0_i64_24, %0, %c0_i64_25, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64) -> ()
      %c0_i64_26 = arith.constant 0 : i64
      %c0_i64_27 = arith.constant 0 : i64
      %c0_i64_28 = arith.constant 0 : i64
      "npu_tile.v_gather"(%0, %c0_i64_26, %0, %c0_i64_27, %0, %c0_i64_28, %c1_i64, %c1_i64, %c1_i64, %c1_i64) {a_strides = array<i64: 64, 64, 4>, dst_strides = array<i64: 64, 64, 4>, index_strides = array<i64: 64, 64, 4>} : (memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, memref<8x16xf32, "spm">, i64, i64, i64, i64, i64) -> ()
    }) {kernel = "all", source = "npu.test"} : () -> ()
    return
  }
}
