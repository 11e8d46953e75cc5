// RUN: npu-opt %s --npu-tile-double-buffer --cse | FileCheck %s
// RUN: sed 's/spm_kib = .*/spm_kib = 48/' %S/../../../runtime/chips/npu1-lite.toml > %t.toml
// RUN: npu-opt %s --npu-tile-double-buffer=chip=%t.toml | FileCheck %s --check-prefix=SMALL

// Buffers of loop bodies move to the kernel and get two slots, each its loop's; what streams into the matrix unit
// gets four where scratchpad lasts. The inner loop's slots go on where it stopped the time before.
// CHECK: "npu_tile.kernel"
// CHECK-NEXT: %[[X:.*]] = "npu_tile.alloc"() {loop = [[OUTER:[0-9]+]] : i64, slots = 2 : i64} : () -> memref<64x128xbf16, "spm">
// CHECK-NEXT: %[[Y:.*]] = "npu_tile.alloc"() {loop = [[OUTER]] : i64, slots = 2 : i64} : () -> memref<64x128xf32, "acc">
// CHECK-NEXT: %[[W:.*]] = "npu_tile.alloc"() {loop = [[INNER:[0-9]+]] : i64, slots = 4 : i64} : () -> memref<128x128xbf16, "spm">
// CHECK: scf.for %[[N:.*]] =
// CHECK: %[[SLOT:.*]] = "npu_tile.slot"(%[[N_TURN:.*]]) {loop = [[OUTER]] : i64, slots = 2 : i64}
// CHECK: %[[BYTES:.*]] = arith.constant 16384 : i64
// CHECK-NEXT: %[[SHIFT:.*]] = arith.muli %[[SLOT]], %[[BYTES]]
// CHECK: %[[OFFSET:.*]] = arith.addi %{{.*}}, %[[SHIFT]]
// CHECK: "npu_tile.dma_load"(%[[X]], %[[OFFSET]],
// CHECK: scf.for %[[K:.*]] =
// CHECK: %[[BEFORE:.*]] = arith.muli %[[N_TURN]], %{{.*}}
// CHECK-NEXT: %[[TURN:.*]] = arith.addi %{{.*}}, %[[BEFORE]]
// CHECK-NEXT: "npu_tile.slot"(%[[TURN]]) {loop = [[INNER]] : i64, slots = 4 : i64}

// Where scratchpad has no room for a second copy, a buffer has one.
// SMALL: %{{.*}} = "npu_tile.alloc"() : () -> memref<64x128xbf16, "spm">
// SMALL-NEXT: %{{.*}} = "npu_tile.alloc"() {loop = 0 : i64, slots = 2 : i64} : () -> memref<64x128xf32, "acc">
// SMALL-NEXT: %{{.*}} = "npu_tile.alloc"() : () -> memref<128x128xbf16, "spm">
// SMALL-NOT: loop = 1

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
