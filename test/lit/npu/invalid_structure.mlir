// RUN: npu-opt %s --split-input-file --verify-diagnostics
// The verifiers of ops with regions.

func.func @fused_op(%x: tensor<4x8xf32>, %w: tensor<8x8xf32>) {
  // expected-error@+1 {{npu.matmul cannot be part of a fused kernel}}
  %0 = "npu.fused"() ({
    %1 = "npu.matmul"(%x, %w) {transpose_w = false, epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32>
    "npu.yield"(%1) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<4x8xf32>
  return
}

// -----

func.func @fused_results(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{npu.yield's values differ from the results in type}}
  %0 = "npu.fused"() ({
    %1 = "npu.unary"(%x) {op = "exp"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
    "npu.yield"(%1) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> ()
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<4x8xbf16>
  return
}

// -----

func.func @repeat_arguments(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{region's arguments must begin with i64, tensor<4x8xf32>}}
  %0 = "npu.repeat"(%x) ({
  ^bb0(%layer: i64):
    "npu.yield"(%x) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> ()
  }) {count = 2, params = [], operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @repeat_names(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{parameter 0 has 1 names for 2 layers}}
  %0 = "npu.repeat"(%x) ({
  ^bb0(%layer: i64, %c: tensor<4x8xf32>, %w: tensor<8xf32>):
    "npu.yield"(%c) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> ()
  }) {count = 2, params = [["a.weight"]], operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @repeat_parameters(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{region has 0 parameter arguments, params names 1}}
  %0 = "npu.repeat"(%x) ({
  ^bb0(%layer: i64, %c: tensor<4x8xf32>):
    "npu.yield"(%c) {operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> ()
  }) {count = 1, params = [["a.weight"]], operandSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @no_terminator(%x: tensor<4x8xf32>) {
  %0 = "npu.fused"() ({
    // expected-error@+1 {{block with no terminator}}
    %1 = "npu.unary"(%x) {op = "exp"} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  }) {resultSegmentSizes = array<i32: 1, 0, 0, 0, 0, 0, 0, 0>} : () -> tensor<4x8xf32>
  return
}

// -----

func.func @negative_row(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{'npu.capture' op layer -1 is negative}}
  "npu.capture"(%x) {output = "x", layer = -1 : i64} : (tensor<4x8xf32>) -> ()
  return
}

// -----

func.func @no_output(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{'npu.capture' op output has no name}}
  "npu.capture"(%x) {output = "", layer = 0 : i64} : (tensor<4x8xf32>) -> ()
  return
}
