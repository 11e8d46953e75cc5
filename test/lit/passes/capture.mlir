// RUN: npu-opt %s --npu-capture | FileCheck %s
// RUN: npu-opt %s --npu-capture=select=ops | FileCheck %s --check-prefix=OPS
// RUN: npu-opt %s --npu-capture=replace=0 | FileCheck %s --check-prefix=REPLACE
// RUN: npu-opt %s --npu-capture --npu-roll-layers | FileCheck %s --check-prefix=ROLLED
// RUN: not npu-opt %s --npu-capture=replace=7 2>&1 | FileCheck %s --check-prefix=MISSING
// RUN: not npu-opt %s --npu-capture=select=all 2>&1 | FileCheck %s --check-prefix=SELECT

// What a layer hands on, each in its row; not what stays within, nor what comes before the layers.
// CHECK-LABEL: func.func @main(
// CHECK-NOT: npu.capture
// CHECK: %[[M0:.*]] = "npu.matmul"
// CHECK-NEXT: "npu.capture"(%[[M0]]) {layer = 0 : i64, output = "layers.*.proj#0"}
// CHECK-NOT: npu.capture
// CHECK: %[[M1:.*]] = "npu.matmul"
// CHECK-NEXT: "npu.capture"(%[[M1]]) {layer = 1 : i64, output = "layers.*.proj#0"}
// CHECK-NOT: npu.capture

// The last op of a module makes its result: the first of two ops of layers.*.act is within it.
// OPS: "npu.capture"{{.*}}layer = 0 : i64, output = "embed#0"
// OPS: "npu.unary"
// OPS-NEXT: "npu.unary"
// OPS-NEXT: "npu.capture"{{.*}}layer = 0 : i64, output = "layers.*.act#0"

// REPLACE: func.func @main({{.*}}, %[[NEW:[a-z0-9]+]]: tensor<4x8xf32> {npu.input = "replace:layers.0.proj#0"})
// REPLACE: %[[M0:.*]] = "npu.matmul"
// REPLACE-NEXT: "npu.capture"(%[[M0]])
// REPLACE-NEXT: "npu.unary"(%[[NEW]])

// ROLLED: "npu.repeat"
// ROLLED: "npu.capture"{{.*}}layer = 0 : i64
// ROLLED-NOT: npu.capture

// MISSING: there is no layer 7 to replace; layers are 0 to 1
// SELECT: select is layers or ops, not 'all'
func.func @main(%x: tensor<4x8xf32> {npu.input = "x"}, %w0: tensor<8x8xf32> {npu.param = "layers.0.w"}, %w1: tensor<8x8xf32> {npu.param = "layers.1.w"}) -> (tensor<4x8xf32> {npu.output = "y"}) {
  %e = "npu.unary"(%x) {op = "exp"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("embed")
  %s0 = "npu.unary"(%e) {op = "tanh"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.0.act")
  %a0 = "npu.unary"(%s0) {op = "relu"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.0.act")
  %m0 = "npu.matmul"(%a0, %w0) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32> loc("layers.0.proj")
  %s1 = "npu.unary"(%m0) {op = "tanh"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.1.act")
  %a1 = "npu.unary"(%s1) {op = "relu"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("layers.1.act")
  %m1 = "npu.matmul"(%a1, %w1) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 0, 0, 0, 0>, transpose_w = true} : (tensor<4x8xf32>, tensor<8x8xf32>) -> tensor<4x8xf32> loc("layers.1.proj")
  %y = "npu.unary"(%m1) {op = "exp"} : (tensor<4x8xf32>) -> tensor<4x8xf32> loc("head")
  return %y : tensor<4x8xf32>
}
