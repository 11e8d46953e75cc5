// RUN: npu-opt %s --split-input-file --npu-canonicalize --pretty | FileCheck %s
// One function for each kind of fold.

// CHECK-LABEL: func @views(%x
// CHECK-NEXT: %[[R:.*]] = npu.reshape %x : f32[2*T, 4]
// CHECK-NEXT: %[[S:.*]] = npu.slice %x {dim = 1, offset = 3, stride = 1} : f32[T, 2]
// CHECK-NEXT: func.return %[[R]], %x, %[[S]]
func.func @views(%x: tensor<?x8xf32, ["T", "8"]> {npu.input = "x"}) -> (tensor<?x4xf32, ["2*T", "4"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x2xf32, ["T", "2"]>) {
  %0 = "npu.reshape"(%x) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?xf32, ["8*T"]>
  %1 = "npu.reshape"(%0) : (tensor<?xf32, ["8*T"]>) -> tensor<?x4xf32, ["2*T", "4"]>
  %2 = "npu.transpose"(%x) {perm = [1, 0]} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<8x?xf32, ["8", "T"]>
  %3 = "npu.transpose"(%2) {perm = [1, 0]} : (tensor<8x?xf32, ["8", "T"]>) -> tensor<?x8xf32, ["T", "8"]>
  %4 = "npu.slice"(%x) {dim = 1, offset = 2, stride = 1} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x4xf32, ["T", "4"]>
  %5 = "npu.slice"(%4) {dim = 1, offset = 1, stride = 1} : (tensor<?x4xf32, ["T", "4"]>) -> tensor<?x2xf32, ["T", "2"]>
  return %1, %3, %5 : tensor<?x4xf32, ["2*T", "4"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x2xf32, ["T", "2"]>
}

// -----

// The rotated part of a full rotary embedding, joined with an empty rest; halves joined again.
// CHECK-LABEL: func @joins(%x
// CHECK-NEXT: func.return %x, %x
func.func @joins(%x: tensor<4x8xf32> {npu.input = "x"}) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %0 = "npu.slice"(%x) {dim = 1, offset = 0, stride = 1} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = "npu.slice"(%x) {dim = 1, offset = 8, stride = 1} : (tensor<4x8xf32>) -> tensor<4x0xf32>
  %2 = "npu.concat"(%0, %1) {dim = 1, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x8xf32>, tensor<4x0xf32>) -> tensor<4x8xf32>
  %3 = "npu.slice"(%x) {dim = 1, offset = 0, stride = 1} : (tensor<4x8xf32>) -> tensor<4x3xf32>
  %4 = "npu.slice"(%x) {dim = 1, offset = 3, stride = 1} : (tensor<4x8xf32>) -> tensor<4x5xf32>
  %5 = "npu.concat"(%3, %4) {dim = 1, operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>} : (tensor<4x3xf32>, tensor<4x5xf32>) -> tensor<4x8xf32>
  return %2, %5 : tensor<4x8xf32>, tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func @numbers(%x
// CHECK-NEXT: %[[C:.*]] = npu.constant {value = 8.5} : f32[4]
// CHECK-NEXT: func.return %x, %[[C]]
func.func @numbers(%x: tensor<4xf32> {npu.input = "x"}) -> (tensor<4xf32>, tensor<4xf32>) {
  %one = "npu.constant"() {value = 1.0 : f32} : () -> tensor<f32>
  %0 = "npu.binary"(%one, %x) {op = "mul"} : (tensor<f32>, tensor<4xf32>) -> tensor<4xf32>
  %three = "npu.constant"() {value = 3.0 : f32} : () -> tensor<4xf32>
  %1 = "npu.unary"(%three) {op = "square"} : (tensor<4xf32>) -> tensor<4xf32>
  %half = "npu.constant"() {value = 0.5 : f32} : () -> tensor<f32>
  %2 = "npu.binary"(%1, %half) {op = "sub"} : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
  return %0, %2 : tensor<4xf32>, tensor<4xf32>
}

// -----

// Widening and back is nothing; narrowing and back is not.
// CHECK-LABEL: func @casts(%x
// CHECK-NEXT: %[[N:.*]] = npu.cast %y : bf16[4]
// CHECK-NEXT: %[[W:.*]] = npu.cast %[[N]] : f32[4]
// CHECK-NEXT: func.return %x, %[[W]]
func.func @casts(%x: tensor<4xbf16> {npu.input = "x"}, %y: tensor<4xf32> {npu.input = "y"}) -> (tensor<4xbf16>, tensor<4xf32>) {
  %0 = "npu.cast"(%x) : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = "npu.cast"(%0) : (tensor<4xf32>) -> tensor<4xbf16>
  %2 = "npu.cast"(%y) : (tensor<4xf32>) -> tensor<4xbf16>
  %3 = "npu.cast"(%2) : (tensor<4xbf16>) -> tensor<4xf32>
  return %1, %3 : tensor<4xbf16>, tensor<4xf32>
}

// -----

// CHECK-LABEL: func @product(%x
// CHECK-NEXT: %[[Y:.*]] = npu.matmul %x, %w {epilogue = [], transpose_w} : f32[T, 16]
// CHECK-NEXT: func.return %[[Y]]
func.func @product(%x: tensor<?x8xbf16, ["T", "8"]> {npu.input = "x"}, %w: tensor<16x8xbf16> {npu.param = "w"}) -> tensor<?x16xf32, ["T", "16"]> {
  %0 = "npu.transpose"(%w) {perm = [1, 0]} : (tensor<16x8xbf16>) -> tensor<8x16xbf16>
  %1 = "npu.matmul"(%x, %0) {transpose_w = false, epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>} : (tensor<?x8xbf16, ["T", "8"]>, tensor<8x16xbf16>) -> tensor<?x16xbf16, ["T", "16"]>
  %2 = "npu.cast"(%1) : (tensor<?x16xbf16, ["T", "16"]>) -> tensor<?x16xf32, ["T", "16"]>
  return %2 : tensor<?x16xf32, ["T", "16"]>
}

// -----

// A mask picked by ranges that count all of it, and a range that is never negative.
// CHECK-LABEL: func @masks(%m
// CHECK-NEXT: %[[R:.*]] = npu.reshape %m : i1[B, 1, S]
// CHECK-NEXT: func.return %[[R]]
func.func @masks(%m: tensor<?x?xi1, ["B", "S"]> {npu.input = "m"}) -> tensor<?x1x?xi1, ["B", "1", "S"]> {
  %rows = "npu.iota"() {dim = 0, start = 0, step = 1} : () -> tensor<?xi64, ["B"]>
  %0 = "npu.reshape"(%rows) : (tensor<?xi64, ["B"]>) -> tensor<?x1xi64, ["B", "1"]>
  %1 = "npu.gather"(%m, %0) : (tensor<?x?xi1, ["B", "S"]>, tensor<?x1xi64, ["B", "1"]>) -> tensor<?x1x?xi1, ["B", "1", "S"]>
  %columns = "npu.iota"() {dim = 0, start = 0, step = 1} : () -> tensor<?xi64, ["S"]>
  %2 = "npu.broadcast"(%columns) : (tensor<?xi64, ["S"]>) -> tensor<?x1x?xi64, ["B", "1", "S"]>
  %3 = "npu.take"(%1, %2) : (tensor<?x1x?xi1, ["B", "1", "S"]>, tensor<?x1x?xi64, ["B", "1", "S"]>) -> tensor<?x1x?xi1, ["B", "1", "S"]>
  %zero = "npu.constant"() {value = 0 : i64} : () -> tensor<i64>
  %4 = "npu.binary"(%columns, %zero) {op = "ge"} : (tensor<?xi64, ["S"]>, tensor<i64>) -> tensor<?xi1, ["S"]>
  %5 = "npu.binary"(%3, %4) {op = "and"} : (tensor<?x1x?xi1, ["B", "1", "S"]>, tensor<?xi1, ["S"]>) -> tensor<?x1x?xi1, ["B", "1", "S"]>
  return %5 : tensor<?x1x?xi1, ["B", "1", "S"]>
}
