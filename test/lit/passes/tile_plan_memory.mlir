// RUN: npu-opt %s --npu-tile-double-buffer --npu-tile-plan-memory | FileCheck %s
// RUN: sed 's/spm_kib = .*/spm_kib = 40/' %S/../../../runtime/chips/npu1-lite.toml > %t.toml
// RUN: not npu-opt %s --npu-tile-plan-memory=chip=%t.toml 2>&1 | FileCheck %s --check-prefix=OVER

// CHECK: "npu_tile.alloc"() {address = 0 : i64, {{.*}}} : () -> memref<64x128xbf16, "spm">
// CHECK-NEXT: "npu_tile.alloc"() {address = 0 : i64, {{.*}}} : () -> memref<64x128xf32, "acc">
// CHECK-NEXT: "npu_tile.alloc"() {address = 32768 : i64, {{.*}}} : () -> memref<128x128xbf16, "spm">

// OVER: kernel mm of npu.matmul needs 49152 bytes of spm, npu1-lite has 40960:
// OVER-NEXT: 16384 bytes memref<64x128xbf16, "spm">
// OVER-NEXT: 32768 bytes memref<128x128xbf16, "spm">
// OVER: choose smaller tiles for this kernel, or a chip with more memory.spm_kib

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
