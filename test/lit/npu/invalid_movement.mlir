// RUN: npu-opt %s --split-input-file --verify-diagnostics
// The verifiers of ops that move elements.

func.func @reshape(%x: tensor<?x6xf32, ["T", "6"]>) {
  // expected-error@+1 {{[T, 6] has 6*T elements, [T, 5] has 5*T}}
  %0 = "npu.reshape"(%x) : (tensor<?x6xf32, ["T", "6"]>) -> tensor<?x5xf32, ["T", "5"]>
  return
}

// -----

func.func @reshape_dtype(%x: tensor<6xf32>) {
  // expected-error@+1 {{y is bf16, expected f32}}
  %0 = "npu.reshape"(%x) : (tensor<6xf32>) -> tensor<2x3xbf16>
  return
}

// -----

func.func @permutation(%x: tensor<2x3xf32>) {
  // expected-error@+1 {{[0, 0] is not a permutation of rank 2}}
  %0 = "npu.transpose"(%x) {perm = [0, 0]} : (tensor<2x3xf32>) -> tensor<2x2xf32>
  return
}

// -----

func.func @transpose(%x: tensor<2x3xf32>) {
  // expected-error@+1 {{y has extents [2, 3], expected [3, 2]}}
  %0 = "npu.transpose"(%x) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return
}

// -----

func.func @broadcast(%x: tensor<2x3xf32>) {
  // expected-error@+1 {{[2, 3] does not broadcast to [4, 3]}}
  %0 = "npu.broadcast"(%x) : (tensor<2x3xf32>) -> tensor<4x3xf32>
  return
}

// -----

func.func @slice_beyond(%x: tensor<8xf32>) {
  // expected-error@+1 {{3 elements from 4 by 2 leave the extent 8}}
  %0 = "npu.slice"(%x) {dim = 0, offset = 4, stride = 2} : (tensor<8xf32>) -> tensor<3xf32>
  return
}

// -----

func.func @slice_beyond_symbol(%x: tensor<?xf32, ["T"]>) {
  // expected-error@+1 {{T elements from 1 by 1 leave the extent T}}
  %0 = "npu.slice"(%x) {dim = 0, offset = 1, stride = 1} : (tensor<?xf32, ["T"]>) -> tensor<?xf32, ["T"]>
  return
}

// -----

func.func @slice_stride(%x: tensor<8xf32>) {
  // expected-error@+1 {{stride 0 is less than 1}}
  %0 = "npu.slice"(%x) {dim = 0, offset = 0, stride = 0} : (tensor<8xf32>) -> tensor<8xf32>
  return
}

// -----

func.func @concat_extent(%x: tensor<?xf32, ["T"]>) {
  // expected-error@+1 {{extents along dim 0 add up to 2*T, y has T}}
  %0 = "npu.concat"(%x, %x) {dim = 0, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<?xf32, ["T"]>, tensor<?xf32, ["T"]>) -> tensor<?xf32, ["T"]>
  return
}

// -----

func.func @concat_others(%x: tensor<2x3xf32>, %y: tensor<2x4xf32>) {
  // expected-error@+1 {{operand 1 has extents [2, 4], expected [2, 3]}}
  %0 = "npu.concat"(%x, %y) {dim = 0, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<2x3xf32>, tensor<2x4xf32>) -> tensor<4x3xf32>
  return
}

// -----

func.func @gather(%table: tensor<16x8xf32>, %index: tensor<4xf32>) {
  // expected-error@+1 {{index is f32, expected i64 or i32 or i8}}
  %0 = "npu.gather"(%table, %index) : (tensor<16x8xf32>, tensor<4xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @gather_result(%table: tensor<16x8xf32>, %index: tensor<2x4xi64>) {
  // expected-error@+1 {{y has extents [8, 8], expected [2, 4, 8]}}
  %0 = "npu.gather"(%table, %index) : (tensor<16x8xf32>, tensor<2x4xi64>) -> tensor<8x8xf32>
  return
}

// -----

func.func @take(%x: tensor<4x8xf32>, %index: tensor<3x2xi64>) {
  // expected-error@+1 {{index has extents [3, 2], expected [4, 2]}}
  %0 = "npu.take"(%x, %index) : (tensor<4x8xf32>, tensor<3x2xi64>) -> tensor<3x2xf32>
  return
}

// -----

func.func @put_rows_of_another_width(%x: tensor<4x8xf32>, %rows: tensor<3xi64>, %values: tensor<3x7xf32>) {
  // expected-error@+1 {{values has extents [3, 7], expected [3, 8]}}
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 1} : (tensor<4x8xf32>, tensor<3xi64>, tensor<3x7xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @put_rows_over_three_dimensions(%x: tensor<4x8x2xf32>, %rows: tensor<3xi64>, %values: tensor<3xf32>) {
  // expected-error@+1 {{leading is 3, expected 1 or 2}}
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 3} : (tensor<4x8x2xf32>, tensor<3xi64>, tensor<3xf32>) -> tensor<4x8x2xf32>
  return
}

// -----

func.func @put_rows_by_floats(%x: tensor<4x8xf32>, %rows: tensor<3xf32>, %values: tensor<3x8xf32>) {
  // expected-error@+1 {{rows is f32, expected i64 or i32 or i8}}
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 1} : (tensor<4x8xf32>, tensor<3xf32>, tensor<3x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @put_rows_by_a_table(%x: tensor<4x8xf32>, %rows: tensor<3x1xi64>, %values: tensor<3x8xf32>) {
  // expected-error@+1 {{rows is no list}}
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 1} : (tensor<4x8xf32>, tensor<3x1xi64>, tensor<3x8xf32>) -> tensor<4x8xf32>
  return
}

// -----

func.func @put_rows_of_a_list(%x: tensor<8xf32>, %rows: tensor<3xi64>, %values: tensor<3xf32>) {
  // expected-error@+1 {{x has less than 2 dimensions}}
  %0 = "npu.put_rows"(%x, %rows, %values) {leading = 2} : (tensor<8xf32>, tensor<3xi64>, tensor<3xf32>) -> tensor<8xf32>
  return
}
