// RUN: npu-opt %s --convert-torch-to-npu --pretty | FileCheck %s
// A layer of experts: routing, then a sort by expert around two grouped products.

// CHECK: %[[W:.*]], %[[IDS:.*]] = npu.topk_softmax %logits {k = 2, renormalize} : f32[T, 2], i32[T, 2]
// CHECK: %[[ROWS:.*]], %[[M:.*]], %[[OFF:.*]] = npu.sort_experts %[[IDS]] {experts = 4} : i32[2, T], i32[4], i32[5]
// CHECK: %[[X:.*]] = npu.scatter_rows %x, %[[ROWS]] : bf16[2*T, 8]
// CHECK: %[[H:.*]] = npu.grouped_matmul %[[X]], %w13, %[[OFF]], %[[M]] {epilogue = [gate_silu]} : bf16[2*T, 6]
// CHECK: %[[Y:.*]] = npu.grouped_matmul %[[H]], %w2, %[[OFF]], %[[M]] {epilogue = []} : bf16[2*T, 8]
// CHECK: %[[MOE:.*]] = npu.combine_rows %[[Y]], %[[ROWS]], %[[W]] : bf16[T, 8]
// CHECK: npu.matmul %[[MOE]], %w, %b, %x {epilogue = [bias, gelu, residual], transpose_w} : bf16[T, 8]
func.func @main(%x: !torch.vtensor<[?,8],bf16> {npu.input = "x", npu.dims = ["T", "8"]}, %logits: !torch.vtensor<[?,4],f32> {npu.input = "logits", npu.dims = ["T", "4"]}, %w13: !torch.vtensor<[4,12,8],bf16> {npu.param = "w13"}, %w2: !torch.vtensor<[4,8,6],bf16> {npu.param = "w2"}, %w: !torch.vtensor<[8,8],bf16> {npu.param = "w"}, %b: !torch.vtensor<[8],bf16> {npu.param = "b"}) -> !torch.vtensor<[?,8],bf16> {
  %int2 = torch.constant.int 2
  %true = torch.constant.bool true
  %silu = torch.constant.str "silu"
  %gelu = torch.constant.str "gelu"
  %0:2 = torch.operator "torch.opennpu.topk_softmax"(%logits, %int2, %true) : (!torch.vtensor<[?,4],f32>, !torch.int, !torch.bool) -> (!torch.vtensor<[?,2],f32>, !torch.vtensor<[?,2],si32>)
  %1 = torch.operator "torch.opennpu.fused_moe"(%x, %0#0, %0#1, %w13, %w2, %silu) : (!torch.vtensor<[?,8],bf16>, !torch.vtensor<[?,2],f32>, !torch.vtensor<[?,2],si32>, !torch.vtensor<[4,12,8],bf16>, !torch.vtensor<[4,8,6],bf16>, !torch.str) -> !torch.vtensor<[?,8],bf16>
  %2 = torch.operator "torch.opennpu.matmul"(%1, %w, %b, %x, %gelu, %true) : (!torch.vtensor<[?,8],bf16>, !torch.vtensor<[8,8],bf16>, !torch.vtensor<[8],bf16>, !torch.vtensor<[?,8],bf16>, !torch.str, !torch.bool) -> !torch.vtensor<[?,8],bf16>
  return %2 : !torch.vtensor<[?,8],bf16>
}
