// RUN: npu-opt %s --pretty | FileCheck %s
// Mixture of experts, as one layer: route, sort, scatter, two grouped products, weighted sum.

// CHECK: %[[W:.*]], %[[IDS:.*]] = npu.topk_softmax %logits {k = 2, renormalize} : f32[T, 2], i32[T, 2]
// CHECK: %[[ROWS:.*]], %[[M:.*]], %[[OFF:.*]] = npu.sort_experts %[[IDS]] {experts = 8} : i32[2, T], i32[8], i32[9]
// CHECK: %[[X:.*]] = npu.scatter_rows %x, %[[ROWS]] : bf16[2*T, 64]
// CHECK: %[[H:.*]] = npu.grouped_matmul %[[X]], %w13, %[[OFF]], %[[M]] {epilogue = [gate_silu]} : bf16[2*T, 48]
// CHECK: %[[Y:.*]] = npu.grouped_matmul %[[H]], %w2, %[[OFF]], %[[M]] {epilogue = []} : bf16[2*T, 64]
// CHECK: npu.combine_rows %[[Y]], %[[ROWS]], %[[W]] : bf16[T, 64]
func.func @main(%x: tensor<?x64xbf16, ["T", "64"]> {npu.input = "x"}, %logits: tensor<?x8xf32, ["T", "8"]> {npu.input = "logits"}, %w13: tensor<8x96x64xbf16> {npu.param = "w13"}, %w2: tensor<8x64x48xbf16> {npu.param = "w2"}) -> tensor<?x64xbf16, ["T", "64"]> {
  %w, %ids = "npu.topk_softmax"(%logits) {k = 2, renormalize = true} : (tensor<?x8xf32, ["T", "8"]>) -> (tensor<?x2xf32, ["T", "2"]>, tensor<?x2xi32, ["T", "2"]>)
  %rows, %matrices, %offsets = "npu.sort_experts"(%ids) {experts = 8} : (tensor<?x2xi32, ["T", "2"]>) -> (tensor<2x?xi32, ["2", "T"]>, tensor<8xi32>, tensor<9xi32>)
  %0 = "npu.scatter_rows"(%x, %rows) : (tensor<?x64xbf16, ["T", "64"]>, tensor<2x?xi32, ["2", "T"]>) -> tensor<?x64xbf16, ["2*T", "64"]>
  %1 = "npu.grouped_matmul"(%0, %w13, %offsets, %matrices) {epilogue = ["gate_silu"], operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x64xbf16, ["2*T", "64"]>, tensor<8x96x64xbf16>, tensor<9xi32>, tensor<8xi32>) -> tensor<?x48xbf16, ["2*T", "48"]>
  %2 = "npu.grouped_matmul"(%1, %w2, %offsets, %matrices) {epilogue = [], operandSegmentSizes = array<i32: 1, 1, 1, 1>} : (tensor<?x48xbf16, ["2*T", "48"]>, tensor<8x64x48xbf16>, tensor<9xi32>, tensor<8xi32>) -> tensor<?x64xbf16, ["2*T", "64"]>
  %3 = "npu.combine_rows"(%2, %rows, %w) : (tensor<?x64xbf16, ["2*T", "64"]>, tensor<2x?xi32, ["2", "T"]>, tensor<?x2xf32, ["T", "2"]>) -> tensor<?x64xbf16, ["T", "64"]>
  return %3 : tensor<?x64xbf16, ["T", "64"]>
}
