// RUN: npu-opt %s --split-input-file --verify-diagnostics
// Every verifier: one function for each invariant that it states.

func.func @extents_unknown(%x: tensor<?xf32>) {
  // expected-error@+1 {{'npu.unary' op tensor<?xf32> has a dynamic dimension without a symbolic extent}}
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?xf32>) -> tensor<?xf32>
  return
}

// -----

func.func @extents_contradict(%x: tensor<?xf32, ["T"]>) {
  // expected-error@+1 {{y has extents [2*T], expected [T]}}
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?xf32, ["T"]>) -> tensor<?xf32, ["2*T"]>
  return
}

// -----

func.func @no_polynomial(%x: tensor<?xf32, ["T / 2"]>) {
  // expected-error@+1 {{T is not divisible by 2}}
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?xf32, ["T / 2"]>) -> tensor<?xf32, ["T / 2"]>
  return
}

// -----

func.func @element_type(%x: tensor<4xf64>) {
  // expected-error@+1 {{element type f64 is not supported}}
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<4xf64>) -> tensor<4xf64>
  return
}

// -----

func.func @constant() {
  // expected-error@+1 {{does not fit i64}}
  %0 = "npu.constant"() {value = 1.0 : f32} : () -> tensor<4xi64>
  return
}

// -----

func.func @iota() {
  // expected-error@+1 {{dim 1 is outside rank 1}}
  %0 = "npu.iota"() {dim = 1, start = 0, step = 1} : () -> tensor<4xi64>
  return
}

// -----

func.func @extent() {
  // expected-error@+1 {{T is not divisible by 2}}
  %0 = "npu.extent"() {value = "T / 2"} : () -> tensor<i64>
  return
}

// -----

func.func @cumsum(%x: tensor<4xf32>) {
  // expected-error@+1 {{y is bf16, expected f32}}
  %0 = "npu.cumsum"(%x) : (tensor<4xf32>) -> tensor<4xbf16>
  return
}

// -----

func.func @unary_name(%x: tensor<4xf32>) {
  // expected-error@+1 {{unknown unary op 'expo'; one of copy, neg}}
  %0 = "npu.unary"(%x) {op = "expo"} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @unary_dtype(%x: tensor<4xi64>) {
  // expected-error@+1 {{x is i64, expected f32 or bf16}}
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<4xi64>) -> tensor<4xi64>
  return
}

// -----

func.func @binary_dtypes(%x: tensor<4xf32>, %y: tensor<4xbf16>) {
  // expected-error@+1 {{b is bf16, expected f32}}
  %0 = "npu.binary"(%x, %y) {op = "add"} : (tensor<4xf32>, tensor<4xbf16>) -> tensor<4xf32>
  return
}

// -----

func.func @binary_shapes(%x: tensor<?x4xf32, ["T", "4"]>, %y: tensor<?x1xf32, ["B", "1"]>) {
  // expected-error@+1 {{shapes [T, 4] and [B, 1] do not broadcast}}
  %0 = "npu.binary"(%x, %y) {op = "add"} : (tensor<?x4xf32, ["T", "4"]>, tensor<?x1xf32, ["B", "1"]>) -> tensor<?x4xf32, ["T", "4"]>
  return
}

// -----

func.func @comparison(%x: tensor<4xf32>) {
  // expected-error@+1 {{y is f32, expected i1}}
  %0 = "npu.binary"(%x, %x) {op = "lt"} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @arithmetic_on_bools(%x: tensor<4xi1>) {
  // expected-error@+1 {{a is i1, expected}}
  %0 = "npu.binary"(%x, %x) {op = "add"} : (tensor<4xi1>, tensor<4xi1>) -> tensor<4xi1>
  return
}

// -----

func.func @select(%c: tensor<4xi64>, %x: tensor<4xf32>) {
  // expected-error@+1 {{cond is i64, expected i1}}
  %0 = "npu.select"(%c, %x, %x) : (tensor<4xi64>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @cast(%x: tensor<4xf32>) {
  // expected-error@+1 {{y has extents [5], expected [4]}}
  %0 = "npu.cast"(%x) : (tensor<4xf32>) -> tensor<5xbf16>
  return
}

// -----

func.func @reduce_keepdim(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{y has extents [4], expected [4, 1]}}
  %0 = "npu.reduce"(%x) {op = "sum", dim = 1, keepdim = true} : (tensor<4x8xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @argmax(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{y is f32, expected i64}}
  %0 = "npu.reduce"(%x) {op = "argmax", dim = 1, keepdim = false} : (tensor<4x8xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @mean_of_integers(%x: tensor<4x8xi64>) {
  // expected-error@+1 {{x is i64, expected f32 or bf16}}
  %0 = "npu.reduce"(%x) {op = "mean", dim = 1, keepdim = false} : (tensor<4x8xi64>) -> tensor<4xi64>
  return
}

// -----

func.func @softmax(%x: tensor<4x8xi64>) {
  // expected-error@+1 {{x is i64, expected f32 or bf16}}
  %0 = "npu.softmax"(%x) : (tensor<4x8xi64>) -> tensor<4x8xi64>
  return
}

// -----

func.func @rms_norm(%x: tensor<4x8xf32>, %w: tensor<4xf32>) {
  // expected-error@+1 {{w has extents [4], expected [8]}}
  %0 = "npu.rms_norm"(%x, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<4xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @layer_norm(%x: tensor<4x8xf32>, %w: tensor<8xf32>, %b: tensor<4xf32>) {
  // expected-error@+1 {{b has extents [4], expected [8]}}
  %0 = "npu.layer_norm"(%x, %w, %b) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>, tensor<4xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @add_rms_norm(%x: tensor<4x8xf32>, %r: tensor<4x8xbf16>, %w: tensor<8xf32>) {
  // expected-error@+1 {{residual is bf16, expected f32}}
  %0:2 = "npu.add_rms_norm"(%x, %r, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<4x8xbf16>, tensor<8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>)
  return
}

// -----

func.func @silu_and_mul(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{x has extents [4, 8], expected [4, 6]}}
  %0 = "npu.silu_and_mul"(%x) : (tensor<4x8xf32>) -> tensor<4x3xf32>
  return
}

// -----

func.func @gelu_and_mul(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{unknown approximate 'erf'; one of none, tanh}}
  %0 = "npu.gelu_and_mul"(%x) {approximate = "erf"} : (tensor<4x8xf32>) -> tensor<4x4xf32>
  return
}

// -----

func.func @matmul_contraction(%x: tensor<4x8xf32>, %w: tensor<16x9xf32>) {
  // expected-error@+1 {{contraction of 8 in x with 9 in w}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = true, epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<16x9xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @matmul_batch(%x: tensor<2x4x8xf32>, %w: tensor<3x8x16xf32>) {
  // expected-error@+1 {{x and w have different batch dimensions}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<2x4x8xf32>, tensor<3x8x16xf32>) -> tensor<2x4x16xf32>
  return
}

// -----

func.func @matmul_dtypes(%x: tensor<4x8xbf16>, %w: tensor<8x16xf32>) {
  // expected-error@+1 {{w is f32, expected bf16}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xbf16>, tensor<8x16xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @epilogue_name(%x: tensor<4x8xf32>, %w: tensor<8x16xf32>) {
  // expected-error@+1 {{unknown epilogue step 'swish'}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = ["swish"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @epilogue_operand_missing(%x: tensor<4x8xf32>, %w: tensor<8x16xf32>) {
  // expected-error@+1 {{epilogue step 'bias' has no extra operand}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = ["bias"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @epilogue_operand_left(%x: tensor<4x8xf32>, %w: tensor<8x16xf32>, %b: tensor<16xf32>) {
  // expected-error@+1 {{has more extra operands than the epilogue uses}}
  %0 = "npu.matmul"(%x, %w, %b) {transpose_w = false, epilogue = ["silu"], operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @epilogue_residual(%x: tensor<4x8xf32>, %w: tensor<8x16xf32>, %r: tensor<16xf32>) {
  // expected-error@+1 {{residual has extents [16], expected [4, 16]}}
  %0 = "npu.matmul"(%x, %w, %r) {transpose_w = false, epilogue = ["residual"], operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  return
}

// -----

func.func @gate_after_activation(%x: tensor<4x8xf32>, %w: tensor<16x8xf32>) {
  // expected-error@+1 {{only bias may come before gate_silu}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = true, epilogue = ["relu", "gate_silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<16x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @gate_without_transpose(%x: tensor<4x8xf32>, %w: tensor<8x16xf32>) {
  // expected-error@+1 {{gate_silu needs transpose_w}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @gate_of_odd_width(%x: tensor<4x8xf32>, %w: tensor<15x8xf32>) {
  // expected-error@+1 {{gate_silu needs an even number of columns, not 15}}
  %0 = "npu.matmul"(%x, %w) {transpose_w = true, epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<15x8xf32>) -> tensor<4x7xf32>
  return
}
