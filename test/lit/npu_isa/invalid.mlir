// RUN: npu-opt %s --split-input-file --verify-diagnostics
// An instruction verifies when it has an encoding.

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.s_mov' op rd: 256 is out of range for register}}
  "npu_isa.s_mov"() {a = array<i64: 0>, rd = 256 : i64} : () -> ()
}) : () -> ()

// -----

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.s_mov' op a: 5 terms, at most 4 fit}}
  "npu_isa.s_mov"() {a = array<i64: 0, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1>, rd = 2 : i64} : () -> ()
}) : () -> ()

// -----

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.s_mov' op a: array<i64: 0, 2> is no value}}
  "npu_isa.s_mov"() {a = array<i64: 0, 2>, rd = 2 : i64} : () -> ()
}) : () -> ()

// -----

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.if' op lacks the attributes cond}}
  "npu_isa.if"() : () -> ()
}) : () -> ()

// -----

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.s_ld' op dtype: 'f32' is not one of i64, i32}}
  "npu_isa.s_ld"() {addr = array<i64: 0>, dtype = "f32", rd = 2 : i64} : () -> ()
}) : () -> ()

// -----

"npu_isa.program"() ({
  // expected-error@+1 {{'npu_isa.v_fill' op dst: 'sram' is not one of spm, acc}}
  "npu_isa.v_fill"() {d0 = array<i64: 1>, d1 = array<i64: 1>, d2 = array<i64: 1>, dst = ["sram", "f32", array<i64: 0>, 0, 0, 4], is_float = 0 : i64, value = 0 : i64} : () -> ()
}) : () -> ()
