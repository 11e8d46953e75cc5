// RUN: npu-opt %s --npu-fuse-add-norm --mlir-print-debuginfo | FileCheck %s

// The sum goes on as the residual: one op, two results, both places in its location.
// CHECK-LABEL: func.func @residual
// CHECK-SAME: (%[[X:.*]]: tensor<?x8xbf16, ["T", "8"]> {{.*}}, %[[R:.*]]: tensor<?x8xbf16, ["T", "8"]> {{.*}}, %[[W:.*]]: tensor<8xbf16>
// CHECK: %[[N:.*]]:2 = "npu.add_rms_norm"(%[[X]], %[[R]], %[[W]]) {eps = 9.99999974E-6 : f32}
// CHECK-SAME: loc(#[[FUSED:.*]])
// CHECK-NEXT: return %[[N]]#0, %[[N]]#1
func.func @residual(%x: tensor<?x8xbf16, ["T", "8"]>, %r: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<8xbf16>) -> (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>) {
  %sum = "npu.binary"(%x, %r) {op = "add"} : (tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>) -> tensor<?x8xbf16, ["T", "8"]> loc("layers.0")
  %y = "npu.rms_norm"(%sum, %w) {eps = 1.0e-5 : f32} : (tensor<?x8xbf16, ["T", "8"]>, tensor<8xbf16>) -> tensor<?x8xbf16, ["T", "8"]> loc("layers.0.norm")
  return %y, %sum : tensor<?x8xbf16, ["T", "8"]>, tensor<?x8xbf16, ["T", "8"]>
}

// Also the last norm of a model, whose sum nothing else needs.
// CHECK-LABEL: func.func @last
// CHECK: "npu.add_rms_norm"
// CHECK-NOT: npu.binary
// CHECK: return
func.func @last(%x: tensor<4x8xf32>, %r: tensor<4x8xf32>, %w: tensor<8xf32>) -> tensor<4x8xf32> {
  %sum = "npu.binary"(%x, %r) {op = "add"} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %y = "npu.rms_norm"(%sum, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  return %y : tensor<4x8xf32>
}

// Not a residual sum: an operand that repeats along the rows, a product.
// CHECK-LABEL: func.func @other_operands
// CHECK-NOT: npu.add_rms_norm
// CHECK: return
func.func @other_operands(%x: tensor<4x8xf32>, %b: tensor<8xf32>, %w: tensor<8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %sum = "npu.binary"(%x, %b) {op = "add"} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %y = "npu.rms_norm"(%sum, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %product = "npu.binary"(%x, %x) {op = "mul"} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %z = "npu.rms_norm"(%product, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  return %y, %z : tensor<4x8xf32>, tensor<4x8xf32>
}

// The weight is made from the sum, so it is not known where the sum is.
// CHECK-LABEL: func.func @weight_comes_later
// CHECK-NOT: npu.add_rms_norm
// CHECK: return
func.func @weight_comes_later(%x: tensor<8xf32>, %r: tensor<8xf32>) -> tensor<8xf32> {
  %sum = "npu.binary"(%x, %r) {op = "add"} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  %w = "npu.unary"(%sum) {op = "exp"} : (tensor<8xf32>) -> tensor<8xf32>
  %y = "npu.rms_norm"(%sum, %w) {eps = 1.0e-5 : f32} : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  return %y : tensor<8xf32>
}

// Two norms of one sum: the first takes the sum along, the second reads it.
// CHECK-LABEL: func.func @two_norms
// CHECK: %[[N:.*]]:2 = "npu.add_rms_norm"
// CHECK-NEXT: "npu.rms_norm"(%[[N]]#1,
func.func @two_norms(%x: tensor<4x8xf32>, %r: tensor<4x8xf32>, %w: tensor<8xf32>, %v: tensor<8xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %sum = "npu.binary"(%x, %r) {op = "add"} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %y = "npu.rms_norm"(%sum, %w) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %z = "npu.rms_norm"(%sum, %v) {eps = 1.0e-5 : f32} : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  return %y, %z : tensor<4x8xf32>, tensor<4x8xf32>
}

// CHECK-DAG: #[[ADD:.*]] = loc("layers.0")
// CHECK-DAG: #[[NORM:.*]] = loc("layers.0.norm")
// CHECK-DAG: #[[FUSED]] = loc(fused[#[[ADD]], #[[NORM]]])
