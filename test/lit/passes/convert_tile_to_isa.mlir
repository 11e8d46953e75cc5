// RUN: npu-opt %s --convert-tile-to-isa --split-input-file | FileCheck %s

// Linear scalars fold into operands; what is not linear is computed where it is defined.
// CHECK-LABEL: "npu_isa.program"
// CHECK-NEXT: "npu_isa.s_arg"() {index = 0 : i64, rd = 2 : i64}
// CHECK-NEXT: "npu_isa.loop"() {hi = array<i64: 0, 1, 1>, lo = array<i64: 0, 0, 1>, rd = 3 : i64, step = array<i64: 2>}
// CHECK-NEXT: "npu_isa.s_alu"() {a = array<i64: 100, 3, -64>, b = array<i64: 64>, op = "min", rd = 4 : i64}
// CHECK-NEXT: "npu_isa.s_alu"() {a = array<i64: 0, 3, 1>, b = array<i64: 0, 4, 1>, op = "lt", rd = 5 : i64}
// CHECK-NEXT: "npu_isa.if"() {cond = array<i64: 0, 5, 1>}
// CHECK-NEXT: "npu_isa.v_fill"() {d0 = array<i64: 1>, d1 = array<i64: 0, 4, 1>, d2 = array<i64: 16>, dst = ["spm", "bf16", array<i64: 128, 3, 64>, 0, 32, 2], is_float = 1 : i64, value = 5.000000e-01 : f32}
// CHECK-NEXT: "npu_isa.end_if"
// CHECK-NEXT: "npu_isa.dma_store"() {{.*}} dst = array<i64: 8, 2, 1, 3, 192>, {{.*}} src = array<i64: 64>,
// CHECK-NEXT: "npu_isa.end_loop"
// CHECK-NEXT: "npu_isa.barrier"
// CHECK-NEXT: "npu_isa.halt"
func.func @main() {
  %c0 = arith.constant 0 : i64
  %c1 = arith.constant 1 : i64
  %c2 = arith.constant 2 : i64
  %c6 = arith.constant 6 : i64
  %c8 = arith.constant 8 : i64
  %c16 = arith.constant 16 : i64
  %c64 = arith.constant 64 : i64
  %c100 = arith.constant 100 : i64
  %c192 = arith.constant 192 : i64
  %a = "npu_tile.arg"() {index = 0 : i64} : () -> i64
  %core = "npu_tile.core"() : () -> i64
  %cores = "npu_tile.cores"() : () -> i64
  "npu_tile.kernel"() ({
    %x = "npu_tile.alloc"() {address = 64 : i64} : () -> memref<64x16xbf16, "spm">
    scf.for %i = %core to %cores step %c2 : i64 {
      %start = arith.shli %i, %c6 : i64
      %left = arith.subi %c100, %start : i64
      %rows = arith.minsi %left, %c64 : i64
      %unused = arith.muli %rows, %left : i64
      %offset = arith.addi %start, %c64 : i64
      %less = arith.cmpi slt, %i, %rows : i64
      scf.if %less {
        "npu_tile.v_fill"(%x, %offset, %c1, %rows, %c16) {dst_strides = array<i64: 0, 32, 2>, value = 0.5 : f32} : (memref<64x16xbf16, "spm">, i64, i64, i64, i64) -> ()
      }
      %row = arith.muli %i, %c192 : i64
      %to = arith.addi %a, %row : i64
      %address = arith.addi %to, %c8 : i64
      "npu_tile.dma_store"(%address, %x, %c0, %c1, %c1, %c1, %c64, %c0, %c0, %c0, %c0, %c0, %c0) : (i64, memref<64x16xbf16, "spm">, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64) -> ()
    }
  }) {kernel = "k", source = "npu.test"} : () -> ()
  return
}

// -----

// A fifth term needs a register; a slot is its operand modulo the slots; the register of a
// value that a loop reads stays taken to the loop's end.
// CHECK-LABEL: "npu_isa.program"
// CHECK-COUNT-5: "npu_isa.s_ld"
// CHECK-NEXT: "npu_isa.s_mov"() {a = array<i64: 0, [[A:[0-9]+]], 1, [[B:[0-9]+]], 1, [[C:[0-9]+]], 1, [[D:[0-9]+]], 1>, rd = [[SUM:[0-9]+]] : i64}
// CHECK-NEXT: "npu_isa.loop"() {{.*}} rd = [[IV:[0-9]+]]
// CHECK-NEXT: "npu_isa.s_alu"() {a = array<i64: 0, [[IV]], 1>, b = array<i64: 2>, op = "mod", rd = [[SLOT:[0-9]+]] : i64}
// CHECK-NEXT: "npu_isa.set_flag"() {flag = array<i64: 0, [[SLOT]], 1>, queue = "load"}
// CHECK-NEXT: "npu_isa.wait_flag"() {flag = array<i64: 0, [[SUM]], 1, {{[0-9]+}}, 1>, queue = "store"}
func.func @main() {
  %c3 = arith.constant 3 : i64
  %c5 = arith.constant 5 : i64
  %c9 = arith.constant 9 : i64
  "npu_tile.kernel"() ({
    %a = "npu_tile.load_scalar"(%c3) {dtype = "i64"} : (i64) -> i64
    %b = "npu_tile.load_scalar"(%c3) {dtype = "i64"} : (i64) -> i64
    %c = "npu_tile.load_scalar"(%c3) {dtype = "i64"} : (i64) -> i64
    %d = "npu_tile.load_scalar"(%c3) {dtype = "i64"} : (i64) -> i64
    %e = "npu_tile.load_scalar"(%c3) {dtype = "i32"} : (i64) -> i64
    %0 = arith.addi %a, %b : i64
    %1 = arith.addi %0, %c : i64
    %2 = arith.addi %1, %d : i64
    %3 = arith.addi %2, %e : i64
    scf.for %i = %c3 to %c9 step %c5 : i64 {
      %slot = "npu_tile.slot"(%i) {loop = 0 : i64, slots = 2 : i64} : (i64) -> i64
      "npu_tile.set_flag"(%slot) {queue = "load"} : (i64) -> ()
      "npu_tile.wait_flag"(%3) {queue = "store"} : (i64) -> ()
    }
  }) {kernel = "k", source = "npu.test"} : () -> ()
  return
}
