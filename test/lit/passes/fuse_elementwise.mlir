// RUN: npu-opt %s --npu-fuse-elementwise | FileCheck %s

// Casts, a reduction along the row, a column, a constant, a row vector: one kernel.
// CHECK-LABEL: func.func @written_out_rms_norm(
// CHECK-NEXT: %[[Y:.*]] = "npu.fused"() ({
// CHECK-NEXT: {{.*}}"npu.cast"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.reduce"
// CHECK-NEXT: {{.*}}"npu.constant"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NEXT: {{.*}}"npu.cast"
// CHECK-NEXT: %[[Z:.*]] = "npu.binary"
// CHECK-NEXT: "npu.yield"(%[[Z]])
// CHECK-NEXT: })
// CHECK-NEXT: return %[[Y]]
func.func @written_out_rms_norm(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<8xbf16>) -> tensor<?x8xbf16, ["T", "8"]> {
  %0 = "npu.cast"(%x) : (tensor<?x8xbf16, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%0) {op = "square"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.reduce"(%1) {dim = 1 : i64, keepdim = true, op = "mean"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x1xf32, ["T", "1"]>
  %3 = "npu.constant"() {value = 1.0e-6 : f32} : () -> tensor<f32>
  %4 = "npu.binary"(%2, %3) {op = "add"} : (tensor<?x1xf32, ["T", "1"]>, tensor<f32>) -> tensor<?x1xf32, ["T", "1"]>
  %5 = "npu.unary"(%4) {op = "rsqrt"} : (tensor<?x1xf32, ["T", "1"]>) -> tensor<?x1xf32, ["T", "1"]>
  %6 = "npu.binary"(%0, %5) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x1xf32, ["T", "1"]>) -> tensor<?x8xf32, ["T", "8"]>
  %7 = "npu.cast"(%6) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xbf16, ["T", "8"]>
  %9 = "npu.binary"(%7, %w) {op = "mul"} : (tensor<?x8xbf16, ["T", "8"]>, tensor<8xbf16>) -> tensor<?x8xbf16, ["T", "8"]>
  return %9 : tensor<?x8xbf16, ["T", "8"]>
}

// One op is no group.
// CHECK-LABEL: func.func @alone(
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: return
func.func @alone(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %0 : tensor<?x8xf32, ["T", "8"]>
}

// What others need is yielded, in order.
// CHECK-LABEL: func.func @several_results(
// CHECK-NEXT: %[[Y:.*]]:3 = "npu.fused"
// CHECK: "npu.yield"(%{{.*}}, %{{.*}}, %{{.*}})
// CHECK: return %[[Y]]#0, %[[Y]]#1, %[[Y]]#2
func.func @several_results(%x: tensor<?x8xf32, ["T", "8"]>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x1xf32, ["T", "1"]>) {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.reduce"(%1) {dim = 1 : i64, keepdim = true, op = "sum"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x1xf32, ["T", "1"]>
  return %0, %1, %2 : tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x1xf32, ["T", "1"]>
}

// The product needs the first op and the second needs the product: one kernel would be a cycle.
// CHECK-LABEL: func.func @around_a_product(
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.matmul"
// CHECK-NEXT: {{.*}}"npu.binary"
func.func @around_a_product(%x: tensor<?x8xf32, ["T", "8"]>, %w: tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.matmul"(%0, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.binary"(%0, %1) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %2 : tensor<?x8xf32, ["T", "8"]>
}

// An op between the members that needs none of them moves out of the way.
// CHECK-LABEL: func.func @beside_a_product(
// CHECK-NEXT: %[[F:.*]] = "npu.fused"
// CHECK: {{.*}}"npu.yield"
// CHECK-NEXT: })
// CHECK-NEXT: %[[M:.*]] = "npu.matmul"
// CHECK-NEXT: return %[[M]], %[[F]]
func.func @beside_a_product(%x: tensor<?x8xf32, ["T", "8"]>, %w: tensor<8x8xf32>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.unary"(%0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %1, %2 : tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>
}

// Both kernels have the constant.
// CHECK-LABEL: func.func @constants_are_copied(
// CHECK-NEXT: {{.*}}"npu.fused"
// CHECK-NEXT: {{.*}}"npu.constant"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK: {{.*}}"npu.matmul"
// CHECK-NEXT: {{.*}}"npu.fused"
// CHECK-NEXT: {{.*}}"npu.constant"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NOT: {{.*}}"npu.constant"
// CHECK: return
func.func @constants_are_copied(%x: tensor<?x8xf32, ["T", "8"]>, %w: tensor<8x8xf32>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) {
  %c = "npu.constant"() {value = 0.5 : f32} : () -> tensor<f32>
  %0 = "npu.binary"(%x, %c) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<f32>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.matmul"(%0, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xf32, ["T", "8"]>, tensor<8x8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  %4 = "npu.binary"(%2, %c) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<f32>) -> tensor<?x8xf32, ["T", "8"]>
  return %2, %4 : tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>
}

// A broadcast joins the op that reads it, and what it repeats joins too.
// CHECK-LABEL: func.func @broadcast_of_a_column(
// CHECK-NEXT: {{.*}}"npu.fused"
// CHECK-NEXT: {{.*}}"npu.reduce"
// CHECK-NEXT: {{.*}}"npu.broadcast"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NEXT: {{.*}}"npu.yield"
func.func @broadcast_of_a_column(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.reduce"(%x) {dim = 1 : i64, keepdim = true, op = "max"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x1xf32, ["T", "1"]>
  %1 = "npu.broadcast"(%0) : (tensor<?x1xf32, ["T", "1"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.binary"(%x, %1) {op = "sub"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %2 : tensor<?x8xf32, ["T", "8"]>
}

// A broadcast that no vector op reads stays a view.
// CHECK-LABEL: func.func @broadcast_at_the_end(
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.broadcast"
// CHECK-NEXT: return
func.func @broadcast_at_the_end(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<3x?x8xf32, ["3", "T", "8"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.broadcast"(%0) : (tensor<?x8xf32, ["T", "8"]>) -> tensor<3x?x8xf32, ["3", "T", "8"]>
  return %1 : tensor<3x?x8xf32, ["3", "T", "8"]>
}

// The row vector is made anew for every tile of rows, because only this kernel needs it ...
// CHECK-LABEL: func.func @smaller_domain_inside(
// CHECK-NEXT: {{.*}}"npu.fused"
// CHECK-NEXT: {{.*}}"npu.constant"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NEXT: {{.*}}"npu.binary"
// CHECK-NEXT: {{.*}}"npu.yield"
func.func @smaller_domain_inside(%x: tensor<?x8xf32, ["T", "8"]>, %g: tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]> {
  %c = "npu.constant"() {value = 1.0 : f32} : () -> tensor<f32>
  %1 = "npu.binary"(%g, %c) {op = "add"} : (tensor<8xf32>, tensor<f32>) -> tensor<8xf32>
  %2 = "npu.binary"(%x, %1) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  return %2 : tensor<?x8xf32, ["T", "8"]>
}

// ... and is a kernel of its own when others do too: rows that all write one row would race.
// CHECK-LABEL: func.func @smaller_domain_outside(
// CHECK-NEXT: %[[V:.*]] = "npu.fused"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.yield"
// CHECK: %[[Y:.*]] = "npu.binary"(%{{.*}}, %[[V]])
// CHECK-NEXT: return %[[V]], %[[Y]]
func.func @smaller_domain_outside(%x: tensor<?x8xf32, ["T", "8"]>, %g: tensor<8xf32>) -> (tensor<8xf32>, tensor<?x8xf32, ["T", "8"]>) {
  %0 = "npu.unary"(%g) {op = "exp"} : (tensor<8xf32>) -> tensor<8xf32>
  %1 = "npu.unary"(%0) {op = "tanh"} : (tensor<8xf32>) -> tensor<8xf32>
  %2 = "npu.binary"(%x, %1) {op = "mul"} : (tensor<?x8xf32, ["T", "8"]>, tensor<8xf32>) -> tensor<?x8xf32, ["T", "8"]>
  return %1, %2 : tensor<8xf32>, tensor<?x8xf32, ["T", "8"]>
}

// A transpose is between two domains.
// CHECK-LABEL: func.func @views_stay_outside(
// CHECK-NEXT: {{.*}}"npu.fused"
// CHECK: {{.*}}"npu.yield"
// CHECK: {{.*}}"npu.transpose"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: return
func.func @views_stay_outside(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<8x?xf32, ["8", "T"]> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.transpose"(%1) {perm = [1 : i64, 0 : i64]} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<8x?xf32, ["8", "T"]>
  %3 = "npu.unary"(%2) {op = "neg"} : (tensor<8x?xf32, ["8", "T"]>) -> tensor<8x?xf32, ["8", "T"]>
  return %3 : tensor<8x?xf32, ["8", "T"]>
}

// Only the last dimension lies within a row.
// CHECK-LABEL: func.func @reduction_of_columns(
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.reduce"
// CHECK-NEXT: return
func.func @reduction_of_columns(%x: tensor<?x8xf32, ["T", "8"]>) -> tensor<1x8xf32> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.reduce"(%0) {dim = 0 : i64, keepdim = true, op = "sum"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<1x8xf32>
  return %1 : tensor<1x8xf32>
}

// A result without the last dimension is aligned with the rows only when it leaves the kernel.
// CHECK-LABEL: func.func @dropped_dimension(
// CHECK-NEXT: %[[F:.*]]:2 = "npu.fused"
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.reduce"
// CHECK-NEXT: {{.*}}"npu.yield"
// CHECK: "npu.binary"(%[[F]]#0, %[[F]]#1)
func.func @dropped_dimension(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = "npu.reduce"(%0) {dim = 1 : i64, keepdim = false, op = "sum"} : (tensor<8x8xf32>) -> tensor<8xf32>
  %2 = "npu.binary"(%0, %1) {op = "sub"} : (tensor<8x8xf32>, tensor<8xf32>) -> tensor<8x8xf32>
  return %2 : tensor<8x8xf32>
}

// Attention reads the pages that the write fills, so the way through memory counts as a path.
// CHECK-LABEL: func.func @across_kv_pages(
// CHECK-NEXT: {{.*}}"npu.unary"
// CHECK-NEXT: {{.*}}"npu.kv_write"
// CHECK-NEXT: {{.*}}"npu.paged_attention"
// CHECK-NEXT: {{.*}}"npu.binary"
func.func @across_kv_pages(%k: tensor<?x8xf32, ["T", "8"]>, %s: tensor<?xi64, ["T"]>, %t: tensor<?x?xi32, ["B", "P"]>, %l: tensor<?xi64, ["B"]>, %q: tensor<?xi64, ["B + 1"]>) -> tensor<?x8xf32, ["T", "8"]> {
  %0 = "npu.unary"(%k) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  "npu.kv_write"(%0, %0, %s) {head_dim = 4 : i64, kv_heads = 2 : i64, layer = 0 : i64, v_head_dim = 4 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?xi64, ["T"]>) -> ()
  %1 = "npu.paged_attention"(%k, %t, %l, %q) {head_dim = 4 : i64, heads = 2 : i64, kv_heads = 2 : i64, layer = 0 : i64, logit_cap = 0.0 : f32, scale = 1.0 : f32, v_head_dim = 4 : i64, window = 0 : i64} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x?xi32, ["B", "P"]>, tensor<?xi64, ["B"]>, tensor<?xi64, ["B + 1"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.binary"(%0, %1) {op = "add"} : (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %2 : tensor<?x8xf32, ["T", "8"]>
}

// A kernel has at most eight results.
// CHECK-LABEL: func.func @more_results_than_slots(
// CHECK-NEXT: %[[F:.*]]:8 = "npu.fused"
// CHECK: %[[L:.*]] = "npu.unary"(%[[F]]#7)
// CHECK: return
func.func @more_results_than_slots(%x: tensor<?x8xf32, ["T", "8"]>) -> (tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>) {
  %0 = "npu.unary"(%x) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %1 = "npu.unary"(%0) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %2 = "npu.unary"(%1) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %3 = "npu.unary"(%2) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %4 = "npu.unary"(%3) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %5 = "npu.unary"(%4) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %6 = "npu.unary"(%5) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %7 = "npu.unary"(%6) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  %8 = "npu.unary"(%7) {op = "tanh"} : (tensor<?x8xf32, ["T", "8"]>) -> tensor<?x8xf32, ["T", "8"]>
  return %0, %1, %2, %3, %4, %5, %6, %7, %8 : tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>, tensor<?x8xf32, ["T", "8"]>
}
