// RUN: not npu-opt %s --split-input-file --verify-diagnostics 2>&1 | FileCheck %s
// What is expected and does not come, and what comes unexpected, are both failures.

// CHECK: unexpected error: {{.*}}verify_diagnostics.mlir:[[#@LINE+3]]:{{.*}} y has extents [5], expected [4]
func.func @unexpected(%x: tensor<4xf32>) {
  // CHECK: line [[#@LINE+7]]: expected error was not produced: no\ such\ text
  %0 = "npu.unary"(%x) {op = "exp"} : (tensor<4xf32>) -> tensor<5xf32>
  return
}

// -----

// expected-error@+1 {{no such text}}
func.func @missing(%x: tensor<4xf32>) {
  return
}
