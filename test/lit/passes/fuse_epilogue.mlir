// RUN: npu-opt %s --npu-fuse-epilogue | FileCheck %s

// All of a layer's tail, in the order of the ops.
// CHECK-LABEL: func.func @bias_activation_residual(
// CHECK-SAME: %[[X:[a-z0-9]+]]: {{.*}}, %[[W:[a-z0-9]+]]: tensor<12x8xbf16>, %[[B:[a-z0-9]+]]: {{.*}}, %[[R:[a-z0-9]+]]: tensor<?x12
// CHECK-NEXT: %[[Y:.*]] = "npu.matmul"(%[[X]], %[[W]], %[[B]], %[[R]]) {epilogue = ["bias", "gelu", "residual"], operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>, transpose_w = true}
// CHECK-NEXT: return %[[Y]]
func.func @bias_activation_residual(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>, %b: tensor<12xbf16>, %r: tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.binary"(%0, %b) {op = "add"} : (tensor<?x12xbf16, ["T", "12"]>, tensor<12xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.unary"(%1) {op = "gelu"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  %3 = "npu.binary"(%r, %2) {op = "add"} : (tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  return %3 : tensor<?x12xbf16, ["T", "12"]>
}

// A gate halves the columns; the residual has them halved.
// CHECK-LABEL: func.func @gate(
// CHECK-NEXT: "npu.matmul"{{.*}} {epilogue = ["bias", "gate_silu", "residual"],
// CHECK-SAME: -> tensor<?x6xbf16, ["T", "6"]>
// CHECK-NEXT: return
func.func @gate(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>, %b: tensor<12xbf16>, %r: tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.binary"(%0, %b) {op = "add"} : (tensor<?x12xbf16, ["T", "12"]>, tensor<12xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.silu_and_mul"(%1) : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %3 = "npu.binary"(%2, %r) {op = "add"} : (tensor<?x6xbf16, ["T", "6"]>, tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %3 : tensor<?x6xbf16, ["T", "6"]>
}

// Both forms of gelu.
// CHECK-LABEL: func.func @gelu_gates(
// CHECK-NEXT: {{.*}}epilogue = ["gate_gelu"]
// CHECK-NEXT: {{.*}}epilogue = ["gate_gelu_tanh"]
// CHECK-NEXT: return
func.func @gelu_gates(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> (tensor<?x6xbf16, ["T", "6"]>, tensor<?x6xbf16, ["T", "6"]>) {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.gelu_and_mul"(%0) {approximate = "none"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %2 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %3 = "npu.gelu_and_mul"(%2) {approximate = "tanh"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %1, %3 : tensor<?x6xbf16, ["T", "6"]>, tensor<?x6xbf16, ["T", "6"]>
}

// Slices, activation and product written out, in any order.
// CHECK-LABEL: func.func @gate_written_out(
// CHECK-NEXT: "npu.matmul"{{.*}} {epilogue = ["gate_silu"],
// CHECK-NEXT: return
func.func @gate_written_out(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> tensor<?x6xbf16, ["T", "6"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.slice"(%0) {dim = 1 : i64, offset = 6 : i64, stride = 1 : i64} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %2 = "npu.slice"(%0) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %3 = "npu.unary"(%2) {op = "silu"} : (tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %4 = "npu.binary"(%1, %3) {op = "mul"} : (tensor<?x6xbf16, ["T", "6"]>, tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %4 : tensor<?x6xbf16, ["T", "6"]>
}

// The second half is the gate: not what the epilogue does.
// CHECK-LABEL: func.func @halves_the_other_way(
// CHECK: epilogue = []
// CHECK: npu.slice
// CHECK: npu.slice
// CHECK: npu.unary
// CHECK: npu.binary
func.func @halves_the_other_way(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> tensor<?x6xbf16, ["T", "6"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.slice"(%0) {dim = 1 : i64, offset = 0 : i64, stride = 1 : i64} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %2 = "npu.slice"(%0) {dim = 1 : i64, offset = 6 : i64, stride = 1 : i64} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %3 = "npu.unary"(%2) {op = "silu"} : (tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]>
  %4 = "npu.binary"(%1, %3) {op = "mul"} : (tensor<?x6xbf16, ["T", "6"]>, tensor<?x6xbf16, ["T", "6"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %4 : tensor<?x6xbf16, ["T", "6"]>
}

// A gate pairs rows of the weight, so the weight is [N][K].
// CHECK-LABEL: func.func @gate_of_a_kn_weight(
// CHECK: epilogue = []
// CHECK: npu.silu_and_mul
func.func @gate_of_a_kn_weight(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<8x12xbf16>) -> tensor<?x6xbf16, ["T", "6"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = false} : (tensor<?x8xbf16, ["T", "8"]>, tensor<8x12xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.silu_and_mul"(%0) : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %1 : tensor<?x6xbf16, ["T", "6"]>
}

// Only a bias may come before a gate.
// CHECK-LABEL: func.func @gate_after_activation(
// CHECK: epilogue = ["tanh"]
// CHECK: npu.silu_and_mul
func.func @gate_after_activation(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> tensor<?x6xbf16, ["T", "6"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.unary"(%0) {op = "tanh"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.silu_and_mul"(%1) : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x6xbf16, ["T", "6"]>
  return %2 : tensor<?x6xbf16, ["T", "6"]>
}

// The product itself is needed too.
// CHECK-LABEL: func.func @other_users(
// CHECK: epilogue = []
// CHECK: npu.unary
func.func @other_users(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> (tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>) {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.unary"(%0) {op = "relu"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  return %0, %1 : tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>
}

// The chain ends where a value is needed twice.
// CHECK-LABEL: func.func @stops_in_the_middle(
// CHECK: %[[Y:.*]] = "npu.matmul"{{.*}} {epilogue = ["relu"],
// CHECK-NEXT: %[[E:.*]] = "npu.unary"(%[[Y]]) {op = "exp"}
// CHECK-NEXT: return %[[Y]], %[[E]]
func.func @stops_in_the_middle(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>) -> (tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>) {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.unary"(%0) {op = "relu"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.unary"(%1) {op = "exp"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  return %1, %2 : tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>
}

// A column that repeats, a function that is no activation, a cast: none is a step.
// CHECK-LABEL: func.func @not_a_step(
// CHECK-COUNT-3: epilogue = []
// CHECK-NOT: epilogue
// CHECK: return
func.func @not_a_step(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>, %c: tensor<?x1xbf16, ["T", "1"]>) -> (tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xf32, ["T", "12"]>) {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %3 = "npu.binary"(%0, %c) {op = "add"} : (tensor<?x12xbf16, ["T", "12"]>, tensor<?x1xbf16, ["T", "1"]>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %4 = "npu.unary"(%1) {op = "abs"} : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %5 = "npu.cast"(%2) : (tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xf32, ["T", "12"]>
  return %3, %4, %5 : tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xf32, ["T", "12"]>
}

// The sum of two products: the one is the other's residual.
// CHECK-LABEL: func.func @two_products(
// CHECK: %[[A:.*]] = "npu.matmul"{{.*}} {epilogue = []
// CHECK-NEXT: "npu.matmul"({{.*}}, %[[A]]) {epilogue = ["residual"]
func.func @two_products(%x: tensor<?x8xbf16, ["T", "8"]>, %w: tensor<12x8xbf16>, %z: tensor<?x8xbf16, ["T", "8"]>) -> tensor<?x12xbf16, ["T", "12"]> {
  %0 = "npu.matmul"(%x, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %1 = "npu.matmul"(%z, %w) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<?x8xbf16, ["T", "8"]>, tensor<12x8xbf16>) -> tensor<?x12xbf16, ["T", "12"]>
  %2 = "npu.binary"(%0, %1) {op = "add"} : (tensor<?x12xbf16, ["T", "12"]>, tensor<?x12xbf16, ["T", "12"]>) -> tensor<?x12xbf16, ["T", "12"]>
  return %2 : tensor<?x12xbf16, ["T", "12"]>
}
