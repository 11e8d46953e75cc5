// RUN: npu-opt %s --split-input-file --verify-diagnostics
// The verifiers of mixture of experts.

func.func @more_than_there_are(%x: tensor<3x4xf32>) {
  // expected-error@+1 {{k is 5, more than the 4 experts}}
  %0, %1 = "npu.topk_softmax"(%x) {k = 5, renormalize = false} : (tensor<3x4xf32>) -> (tensor<3x5xf32>, tensor<3x5xi32>)
  return
}

// -----

func.func @none(%x: tensor<3x4xf32>) {
  // expected-error@+1 {{k is 0, expected at least 1}}
  %0, %1 = "npu.topk_softmax"(%x) {k = 0, renormalize = false} : (tensor<3x4xf32>) -> (tensor<3x0xf32>, tensor<3x0xi32>)
  return
}

// -----

func.func @ids_of_another_width(%x: tensor<3x4xf32>) {
  // expected-error@+1 {{ids has extents [3, 4], expected [3, 2]}}
  %0, %1 = "npu.topk_softmax"(%x) {k = 2, renormalize = false} : (tensor<3x4xf32>) -> (tensor<3x2xf32>, tensor<3x4xi32>)
  return
}

// -----

func.func @rows_not_turned(%x: tensor<3x2xi32>) {
  // expected-error@+1 {{rows has extents [3, 2], expected [2, 3]}}
  %0, %1, %2 = "npu.sort_experts"(%x) {experts = 4} : (tensor<3x2xi32>) -> (tensor<3x2xi32>, tensor<4xi32>, tensor<5xi32>)
  return
}

// -----

func.func @an_offset_too_few(%x: tensor<3x2xi32>) {
  // expected-error@+1 {{offsets has extents [4], expected [5]}}
  %0, %1, %2 = "npu.sort_experts"(%x) {experts = 4} : (tensor<3x2xi32>) -> (tensor<2x3xi32>, tensor<4xi32>, tensor<4xi32>)
  return
}

// -----

func.func @choices_unknown(%x: tensor<3x?xi32, ["3", "k"]>) {
  // expected-error@+1 {{the number of choices is k, expected a number}}
  %0, %1, %2 = "npu.sort_experts"(%x) {experts = 4} : (tensor<3x?xi32, ["3", "k"]>) -> (tensor<?x3xi32, ["k", "3"]>, tensor<4xi32>, tensor<5xi32>)
  return
}

// -----

func.func @rows_of_others(%x: tensor<3x8xf32>, %rows: tensor<2x4xi32>) {
  // expected-error@+1 {{x has 3 rows, rows 4}}
  %0 = "npu.scatter_rows"(%x, %rows) : (tensor<3x8xf32>, tensor<2x4xi32>) -> tensor<8x8xf32>
  return
}

// -----

func.func @contraction(%x: tensor<6x8xf32>, %w: tensor<4x5x9xf32>, %o: tensor<5xi32>) {
  // expected-error@+1 {{contraction of 8 in x with 9 in w}}
  %0 = "npu.grouped_matmul"(%x, %w, %o) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (tensor<6x8xf32>, tensor<4x5x9xf32>, tensor<5xi32>) -> tensor<6x5xf32>
  return
}

// -----

func.func @offsets_of_groups(%x: tensor<6x8xf32>, %w: tensor<4x5x8xf32>, %o: tensor<4xi32>) {
  // expected-error@+1 {{offsets has extents [4], expected [5]}}
  %0 = "npu.grouped_matmul"(%x, %w, %o) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (tensor<6x8xf32>, tensor<4x5x8xf32>, tensor<4xi32>) -> tensor<6x5xf32>
  return
}

// -----

func.func @odd_gate(%x: tensor<6x8xf32>, %w: tensor<4x5x8xf32>, %o: tensor<5xi32>) {
  // expected-error@+1 {{5 is not divisible by 2}}
  %0 = "npu.grouped_matmul"(%x, %w, %o) {epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (tensor<6x8xf32>, tensor<4x5x8xf32>, tensor<5xi32>) -> tensor<6x5xf32>
  return
}

// -----

func.func @no_bias(%x: tensor<6x8xf32>, %w: tensor<4x5x8xf32>, %o: tensor<5xi32>) {
  // expected-error@+1 {{unknown epilogue step 'bias'}}
  %0 = "npu.grouped_matmul"(%x, %w, %o) {epilogue = ["bias"], operandSegmentSizes = array<i32: 1, 1, 1, 0>} : (tensor<6x8xf32>, tensor<4x5x8xf32>, tensor<5xi32>) -> tensor<6x5xf32>
  return
}

// -----

func.func @weights_turned(%x: tensor<6x8xf32>, %rows: tensor<2x3xi32>, %weights: tensor<2x3xf32>) {
  // expected-error@+1 {{weights has extents [2, 3], expected [3, 2]}}
  %0 = "npu.combine_rows"(%x, %rows, %weights) : (tensor<6x8xf32>, tensor<2x3xi32>, tensor<2x3xf32>) -> tensor<3x8xf32>
  return
}

// -----

func.func @matrices_of_groups(%x: tensor<6x8xf32>, %w: tensor<4x5x8xf32>, %o: tensor<5xi32>) {
  // expected-error@+1 {{matrices has extents [5], expected [4]}}
  %0 = "npu.grouped_matmul"(%x, %w, %o, %o) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<6x8xf32>, tensor<4x5x8xf32>, tensor<5xi32>, tensor<5xi32>) -> tensor<6x5xf32>
  return
}
