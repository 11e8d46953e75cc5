// RUN: npu-opt %s --npu-tile-insert-sync --canonicalize --cse | FileCheck %s

// The matrix queue waits for x once, before the loop: what it learns before an `if` it knows after it. y is loaded
// in the first iteration only: no load waits for the products of the iteration before, as it would to write y again.

// CHECK: "npu_tile.kernel"
// CHECK: "npu_tile.wait_flag"(%{{.*}}) {queue = "matrix"}
// CHECK-NEXT: scf.for
// CHECK: {npu_tile.first}
// CHECK-NEXT: "npu_tile.set_flag"(%[[Y:.*]]) {queue = "load"}
// CHECK-NEXT: scf.if
// CHECK-NEXT: "npu_tile.mx_load"
// CHECK-NEXT: {{^ *[}]$}}
// CHECK-NEXT: "npu_tile.wait_flag"(%[[Y]]) {queue = "matrix"}
// CHECK-NEXT: scf.if
// CHECK-NOT: "npu_tile.wait_flag"
// CHECK: return

func.func @main() {
  %c0 = arith.constant 0 : i64
  %c1 = arith.constant 1 : i64
  %c4 = arith.constant 4 : i64
  %c64 = arith.constant 64 : i64
  %c256 = arith.constant 256 : i64
  %a = "npu_tile.arg"() {index = 0 : i64} : () -> i64
  %n = "npu_tile.arg"() {index = 1 : i64} : () -> i64
  %some = arith.cmpi sgt, %n, %c0 : i64
  "npu_tile.kernel"() ({
    %x = "npu_tile.alloc"() : () -> memref<64x128xbf16, "spm">
    %y = "npu_tile.alloc"() : () -> memref<64x128xbf16, "spm">
    "npu_tile.dma_load"(%x, %c0, %a, %c1, %c1, %c1, %c256, %c0, %c0, %c0, %c0, %c0, %c0, %c1, %c1) : (memref<64x128xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
    scf.for %k = %c0 to %c4 step %c1 : i64 {
      %first = arith.cmpi eq, %k, %c0 : i64
      scf.if %first {
        "npu_tile.dma_load"(%y, %c0, %a, %c1, %c1, %c1, %c256, %c0, %c0, %c0, %c0, %c0, %c0, %c1, %c1) : (memref<64x128xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
      } {npu_tile.first}
      scf.if %some {
        "npu_tile.mx_load"(%x, %c0, %c64, %c64, %c256) {dtype = "bf16", layout = "kn"} : (memref<64x128xbf16, "spm">, i64, i64, i64, i64) -> ()
      }
      scf.if %some {
        "npu_tile.mx_load"(%x, %c0, %c64, %c64, %c256) {dtype = "bf16", layout = "kn"} : (memref<64x128xbf16, "spm">, i64, i64, i64, i64) -> ()
        "npu_tile.mx_load"(%y, %c0, %c64, %c64, %c256) {dtype = "bf16", layout = "kn"} : (memref<64x128xbf16, "spm">, i64, i64, i64, i64) -> ()
      }
    }
  }) {kernel = "k", source = "npu.test"} : () -> ()
  return
}
