// RUN: npu-opt %s --convert-tile-to-isa --split-input-file --verify-diagnostics

func.func @main() {
  %c1 = arith.constant 1 : i64
  // expected-error@+1 {{a buffer has no address}}
  %x = "npu_tile.alloc"() : () -> memref<16xf32, "spm">
  "npu_tile.v_fill"(%x, %c1, %c1, %c1, %c1) {dst_strides = array<i64: 0, 0, 4>, value = 0.5 : f32} : (memref<16xf32, "spm">, i64, i64, i64, i64) -> ()
  return
}

// -----

func.func @main() {
  %a = "npu_tile.arg"() {index = 0 : i64} : () -> i64
  // expected-error@+1 {{arith.divui has no form on the chip}}
  %b = arith.divui %a, %a : i64
  return
}
