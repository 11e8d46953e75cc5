// RUN: npu-opt %s --npu-tile-double-buffer --npu-tile-insert-sync --canonicalize --cse | FileCheck %s

// Load runs ahead of matrix by four slots of w, and into the next outer iteration by two of x.
// What other edges imply has no flag: that matrix may write a slot of y again follows from
// vector before store (x), store before load (x), load before matrix (w).
// CHECK: "npu_tile.kernel"
// Credits of the carried edges, one a slot.
// CHECK-COUNT-6: "npu_tile.set_flag"
// CHECK-NOT: "npu_tile.set_flag"
// CHECK: scf.for
// CHECK: "npu_tile.wait_flag"(%[[STORED:.*]]) {queue = "load"}
// CHECK-NEXT: "npu_tile.dma_load"
// CHECK-NEXT: "npu_tile.set_flag"(%[[LOADED:.*]]) {queue = "load"}
// CHECK-NEXT: scf.for
// CHECK: "npu_tile.wait_flag"(%[[FREE:.*]]) {queue = "load"}
// CHECK-NEXT: "npu_tile.dma_load"
// CHECK-NEXT: "npu_tile.set_flag"(%[[FULL:.*]]) {queue = "load"}
// CHECK-NEXT: "npu_tile.wait_flag"(%[[FULL]]) {queue = "matrix"}
// CHECK-NEXT: "npu_tile.mx_load"
// CHECK-NEXT: "npu_tile.set_flag"(%[[FREE]]) {queue = "matrix"}
// CHECK-NEXT: "npu_tile.mx_mul"
// CHECK-NEXT: {{^ *[}]$}}
// CHECK-NEXT: "npu_tile.set_flag"(%[[DONE:.*]]) {queue = "matrix"}
// CHECK-NEXT: "npu_tile.wait_flag"(%[[DONE]]) {queue = "vector"}
// CHECK-NEXT: "npu_tile.wait_flag"(%[[LOADED]]) {queue = "vector"}
// CHECK-NEXT: "npu_tile.v_unary"
// CHECK-NEXT: "npu_tile.set_flag"(%[[READY:.*]]) {queue = "vector"}
// CHECK-NEXT: "npu_tile.wait_flag"(%[[READY]]) {queue = "store"}
// CHECK-NEXT: "npu_tile.dma_store"
// CHECK-NEXT: "npu_tile.set_flag"(%[[STORED]]) {queue = "store"}
// CHECK-NEXT: {{^ *[}]$}}
// The drains.
// CHECK-COUNT-6: "npu_tile.wait_flag"({{.*}}) {queue = "load"}
// CHECK-NEXT: })

func.func @main() {
  %c0 = arith.constant 0 : i64
  %c1 = arith.constant 1 : i64
  %c4 = arith.constant 4 : i64
  %c64 = arith.constant 64 : i64
  %c128 = arith.constant 128 : i64
  %c256 = arith.constant 256 : i64
  %a = "npu_tile.arg"() {index = 0 : i64} : () -> i64
  "npu_tile.kernel"() ({
    scf.for %n = %c0 to %c4 step %c1 : i64 {
      %x = "npu_tile.alloc"() : () -> memref<64x128xbf16, "spm">
      %y = "npu_tile.alloc"() : () -> memref<64x128xf32, "acc">
      "npu_tile.dma_load"(%x, %c0, %a, %c1, %c1, %c1, %c256, %c0, %c0, %c0, %c0, %c0, %c0, %c1, %c1) : (memref<64x128xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      scf.for %k = %c0 to %c4 step %c1 : i64 {
        %w = "npu_tile.alloc"() : () -> memref<128x128xbf16, "spm">
        "npu_tile.dma_load"(%w, %c0, %a, %c1, %c1, %c1, %c256, %c0, %c0, %c0, %c0, %c0, %c0, %c1, %c1) : (memref<128x128xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
        "npu_tile.mx_load"(%w, %c0, %c128, %c128, %c256) {dtype = "bf16", layout = "kn"} : (memref<128x128xbf16, "spm">, i64, i64, i64, i64) -> ()
        "npu_tile.mx_mul"(%y, %c0, %x, %c0, %c64, %k) {dst_stride = 512 : i64, src_stride = 256 : i64} : (memref<64x128xf32, "acc">, i64, memref<64x128xbf16, "spm">, i64, i64, i64) -> ()
      }
      "npu_tile.v_unary"(%x, %c0, %y, %c0, %c1, %c64, %c128) {a_strides = array<i64: 0, 512, 4>, dst_strides = array<i64: 0, 256, 2>, op = "silu"} : (memref<64x128xbf16, "spm">, i64, memref<64x128xf32, "acc">, i64, i64, i64, i64) -> ()
      "npu_tile.dma_store"(%a, %x, %c0, %c1, %c1, %c1, %c256, %c0, %c0, %c0, %c0, %c0, %c0) : (i64, memref<64x128xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
    }
  }) {kernel = "mm", source = "npu.matmul"} : () -> ()
  return
}
